"""Question patterns of the three instruction types (paper: "more than ten" each; two are quoted).

The quoted two are "Please describe the expression in this face." and "Please describe the action
units in this face."; all others are ours. A pattern offers choices in brackets, "[a|b]", which may
be nested; `{face}` takes one of `FACES`, `{person}` one of `PERSONS`, any other `{slot}` a line of
`wordings/slots`. Benchmarks ask the patterns of this file. People ask in many more ways: those of
`wordings/`, a pattern a line, with what they write before and after a question. Every kind of thing
(`wordings/things`) is asked for in every frame (`wordings/frames`): "What ... do you see?" tells
nothing of what is asked. The held-out questions are never trained on; `train.evaluate` asks them to
see whether the model understands a question or only recognises it.
"""

import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from feallm.prompts import (
    ACTION_UNITS_QUESTION,
    EXPRESSION_QUESTION,
    MOVEMENT_QUESTION,
    REASONING_QUESTION,
    SUMMARY_QUESTION,
)

FACES = (
    "this face", "the face", "the picture", "this photo", "the person's face", "this image",
    "the image", "this picture", "the photo",
)  # fmt: skip

PERSONS = ("this face", "the face", "the person's face")
"""For `{person}`: what has muscles, which a photo has not."""

SUMMARY = (
    SUMMARY_QUESTION,
    "Please describe the expression in {face}.",
    "[What|Which] [expression|emotion|feeling|mood] [does {face} [show|express|display|convey]|is shown by {face}]?",
    "[What|Which] [emotion|feeling|expression] is [visible|shown|displayed|seen] in {face}?",
    "[What|Which] [emotion|expression|feeling|mood] [can|do] you [see|find|read|recognise|notice] in {face}?",
    "[How does [this person|the person|{face}] [look|seem]|What does [this person|{face}] look like]?",
    "[Describe|Name|Identify|Characterise|Summarise] the [emotion|expression|facial expression|mood|feeling] [you see |that is visible |shown |]in {face}[, please|].",
    "[What|Which] is the [facial expression|emotion|expression|mood] [in|of] {face}?",
    "[Can|Could|Would] you [please |][tell me|describe|name] the [emotion|expression|mood] [in|of] {face}?",
    "[Please |]tell me [what|which] [emotion|expression|feeling] [this is|{face} shows|is visible in {face}|you see in {face}].",
    "Which of the [basic|seven|universal] [expressions|emotions] fits {face}[ best|]?",
    "Tell me [something |]about the [expression|emotion|mood] [in|of] {face}.",
    "[What|Which] [kind|sort|type] of [emotion|expression|feeling] is [this|shown here|in {face}]?",
    "What emotion is this[, and why|]?",
    "Is this person happy, sad or something else?",
    "How would you [classify|describe|label] the [expression|emotion] [in|of] {face}?",
    "What is this person [showing|expressing]?",
    "What is [on|in] [this|the person's] face?",
    "Give [me |][a short description of|a summary of] the [expression|emotion] in {face}.",
    "[In your opinion|To you|At first sight], [what|which] [emotion|mood] [is this|does {face} show]?",
    "What do you see[ in {face}| here|]?",
    "[Analyse|Describe|Read|Interpret] {face}[, please|].",
    "[Emotion|Expression|The expression|The emotion]?",
    "[I would like to know|I want to know] [what|which] [emotion|expression] [{face} shows|this is].",
    "What [emotion|expression|mood] would you [give|assign to|read from] {face}?",
    "[Say|Write] [what|which] [emotion|expression] [this is|you see].",
)
MOVEMENT = (
    MOVEMENT_QUESTION,
    "Please describe the action units in {face}.",
    "[Which|What] action units [are active|are present|are visible|can you see|do you find|can be seen|are there] in {face}?",
    "[Which|What] action units are [active|on|present|visible]?",
    "[Which|What] [facial |]movements [can|do] you [see|notice|find|observe] in {face}?",
    "[Which|What] [facial |]muscles [are moving|are active|are contracted|are working|are used|are tense] in {face}?",
    "[Which|What] muscles [move|act|are active|are at work]?",
    "[Please |][describe|explain|list|name|give|report] the [facial movements|muscle movements|facial actions|movements|active muscles] [in|of] {face}.",
    "[List|Name|Give me|Tell me|Describe] [all |][the |][active |][action units|AUs] [you see |that are active |]in {face}[ and describe them| and what they do|].",
    "What are the [FACS codes|active AUs|AUs|action units|facial actions] [for|in|of] {face}?",
    "[Can|Could|Would] you [please |][code|score|analyse] {face} [in|with|by] FACS?",
    "[Which|What] AUs [are present|are active|do you see|can you detect|are there|are visible] in {face}?",
    "What do the [muscles|facial muscles] of {person} do?",
    "Tell me [more |]about the [muscle movements|facial movements|muscles|action units] [in|of] {face}.",
    "Give the active [AUs|action units] of {face} with a description.",
    "How is {person} moving?",
    "Describe what the brows, the eyes and the mouth [do|are doing] in {person}.",
    "How do the brows, [the |]eyes and [the |]mouth move[ in {face}|]?",
    "[Analyse|Code|Describe] the [facial actions|muscles|muscle activity|facial muscles] [in|of] {face}.",
    "[Which|What] parts of {person} [move|are moving|are active]?",
    "[Action units|AUs|FACS|FACS codes|Muscles|The action units]?",
    "[Go through|Walk me through] the [action units|muscles|movements] of {person}.",
    "What is [moving|going on|happening] in the muscles of {person}?",
    "[Muscle by muscle|AU by AU], what [does {face} show|do you see]?",
    "[Please |]show me the [action units|facial movements] of {person}.",
)
REASONING = (
    REASONING_QUESTION,
    "How do the [active |][action units|AUs|muscles] [lead|point|add up] to [this|the|that] [expression|emotion]?",
    "Why does {face} [show|have|express] this [expression|emotion]?",
    "Why do you [say so|think so|think that|say that|believe that|see this emotion|choose this expression]?",
    "Why[ is that| this one| this emotion| this expression|]?",
    "[Please |][explain|show|describe] how the [action units|AUs|movements|muscles] [support|explain|lead to|point to|show] the [expression|emotion] in {face}.",
    "What is the [link|connection|relation] between the [movements|action units|muscles] and the [emotion|expression] in {face}?",
    "How do you [get|go|come] from the [muscles|action units|movements] to the [emotion|expression]?",
    "[Give|Show|Tell] me [the|your] [reasoning|reasons|arguments|evidence] [behind|for] [your judgement of {face}|your answer|this expression|this|that].",
    "Which [movements|muscles|AUs] [speak|argue|stand] for this [emotion|expression], and [how|why]?",
    "Reason from the action units of {face} to its [expression|emotion].",
    "What makes you [think|believe|say] [so|that|it is this emotion]?",
    "[Please |]explain [your answer|your judgement|this result|your choice|the expression|yourself|it|that].",
    "How does each [action unit|AU|muscle|movement] [bear on|contribute to|support|matter for] the [expression|emotion] in {face}?",
    "What [evidence|reason] [does {face} give|is there|do you have] for [this expression|the emotion|your answer]?",
    "On what do you base [the expression of {face}|your answer|this|that]?",
    "How did you [come to|arrive at|reach|get to|find] [this conclusion|that answer|this expression|your result]?",
    "How [can|do] you [tell|know|see that]?",
    "What is [the reason|your argument|the evidence|the logic] [for|behind] [this|your answer|that|the emotion]?",
    "[Justify|Defend|Back up] [your answer|this|the expression][, please|].",
    "[Why and how|In what way] do the [muscles|action units] [make|form|give] this [expression|emotion]?",
    "[Because of what|For what reason]?",
    "Which of the [action units|movements] [support|explain] [this|the] [expression|emotion]?",
    "[Reason|Reasons|Reasoning|Your reasons|The reason]?",
)
TEMPLATES = {"summary": SUMMARY, "movement": MOVEMENT, "reasoning": REASONING}
SHORT = {"expression": EXPRESSION_QUESTION, "action_units": ACTION_UNITS_QUESTION}

HELD_OUT = {
    "summary": (
        "Which feeling does this face display?",
        "Please tell me what expression you can see here.",
        "What is the emotion of the person in this photo?",
        "Describe the expression, please.",
        "What kind of emotion does the picture show?",
        "In your view, what expression is this?",
        "What emotion would you say this face shows?",
        "Could you describe how this person looks?",
        "What does the face in this image express?",
        "Say which emotion is visible here.",
    ),
    "movement": (
        "What action units do you see?",
        "Please name the facial muscles that are active.",
        "Which FACS action units are present in this picture?",
        "Could you describe the movements of this face?",
        "What are the muscles of the face doing?",
        "Please list all active AUs with what they do.",
        "Give me the action units of the person's face.",
        "Tell me which facial movements are visible.",
        "What movements do the brows, eyes and mouth make?",
        "Which AUs can you find in this image?",
    ),
    "reasoning": (
        "Explain why you think so.",
        "What is your reasoning?",
        "Why do these action units mean this emotion?",
        "How do the movements explain the expression?",
        "Please give the evidence for this expression.",
        "Which action units support this emotion, and why?",
        "Explain how you get to this expression.",
        "What makes you say this?",
        "How do the muscles lead to this emotion?",
        "Why is it this expression?",
    ),
}

STRANGERS = {
    "summary": (
        "How would you caption this face in terms of emotion?",
        "Emotion recognition result for this image?",
        "Classify the affect shown.",
        "Describe the expression in this photo.",
        "Which prototypical emotion does this portrait depict?",
        "Pick the best-fitting word out of neutral, anger, disgust, fear, happiness, sadness and surprise.",
        "If you had to sum up this face in one sentence, what would you say?",
        "I'm cataloguing stimuli for a study and need to know which emotion category this picture belongs in.",
        "What feeling would most people see in this face?",
        "What do you make of the look on their face?",
        "Hi there! I just uploaded a picture, could you tell me what expression the person is making?",
        "expression please",
        "Give me a one-line description of the look on this face.",
        "So what are we looking at here, anger, fear, something else?",
        "My sister says the face in this shot is showing disgust and I say it's surprise. Who's right?",
        "Name the facial expression.",
        "Would you kindly sum up how the face appears in this image?",
        "ok read this face for me",
        "Which of the basic emotions does this one match best?",
        "I'm sorting pictures for a class project and need a label for this expression. What would you put?",
        "In a sentence or two, what does the face convey?",
        "how would you classify the expression in the photo I just sent",
        "Happy, sad, scared, mad... pick one for this photo.",
        "I took a screenshot from a film and I'd love to know what emotion the actor's face is displaying at this moment.",
        "What's with that face? Describe it briefly.",
        "Just the overall expression, no details needed, thanks.",
        "What emotion is this?",
        "What expression is this person showing?",
        "What facial expression is this?",
        "what emotion is she showing",
        "Which emotion does this face show?",
        "What is the expression on this face?",
        "Name the emotion.",
        "Describe the expression in one word.",
        "Which emotion is expressed here?",
        "What is the facial expression of the person in the photo?",
        "Identify the emotion shown in this picture",
        "Can you tell me what emotion this face is displaying?",
        "How would you label this expression?",
        "whats the vibe of this face like which emotion",
        "ok so what emotion is he giving rn",
        "Happy, sad, angry, scared, what is it?",
        "Could you kindly let me know which emotion the gentleman's face is conveying?",
        "Dear, what sort of expression is that young lady wearing on her face?",
        "please what emotion have this man in face",
        "Which of the basic emotions does this face best match?",
        "I have my psych homework, which of Ekman's emotions is the person in this picture displaying?",
        "Emotion category, please.",
        "Just give me the overall expression label, I don't need the details.",
        "Is this a happy, sad, angry, surprised, disgusted or fearful face?",
        "what mood does the face show",
        "My patient can't speak at the moment. Which emotion is his face showing in this picture?",
        "I'm drawing this character, what expression would you call this?",
        "Classify the expression.",
        "I can never read faces, so what expression is this one?",
        "Does this face show an emotion, and if so which one?",
        "Sum up this facial expression for me.",
        "Fine, impress me: which emotion do you see on this face?",
        "which emoji emotion fits her face, sad mad happy shocked??",
        "I am bad at english sorry, the face is which emotion?",
        "What's the dominant emotion in this expression?",
        "My grandson sent me this photo and I can't see well, what expression is he making?",
        "What look is on her face?",
        "tell me the expression",
        "Kindly provide a brief summary of the expression displayed in the attached image.",
        "If you had to pick one emotion word for what this face shows, which would it be?",
        "what face is the man making? is it a happy one or a mad one or something else",
        "Good afternoon. Could you kindly tell me which expression I am looking at in this picture?",
        "Which of the basic emotions does this facial display best correspond to?",
        "need a one word label for this expression, thanks",
        "bro what emotion is that",
        "Please, which feeling is showing on this face? I cannot recognise it.",
        "For the record, state the emotion displayed on the face in the exhibit.",
        "How would you describe the look on her face in a single sentence? I'm writing a caption.",
        "My pupils are split between fear and surprise. Which one does the face show?",
        "Alright, prove you can do it: what's the expression here?",
        "Patient can't speak to me right now, just name the expression visible on the face please",
        "classify the facial expression in the attached image",
        "happy sad angry or scared?? which one",
        "I've got my glasses off and can't make it out, what sort of expression is it dear",
        "What is the dominant affect expressed in the face?",
        "What expresion have this person in the foto?",
        "tell me what mood the face is showing",
        "In your assessment, what emotion would a reasonable observer read from this face?",
        "Give me the gist: what is this face expressing?",
        "Is this face neutral, or is there some emotion on it, and if so which?",
        "What kind of face is this, like is it grumpy or surprised or what",
        "If you had to put this picture in one of seven emotion folders, which folder would it go in?",
        "I say you can't tell one emotion from another. Go on then, which one is it in this photo?",
        "output the predicted emotion class",
        "How does the face look to you, emotionally speaking?",
        "Can you name the expression so I can put it on my flash card for the class?",
        "what's this look called",
        "I want to sort my reference shots by emotion, what goes on the label of this one?",
        "Just the emotion category please, no explanation.",
        "hey what vibe does that facial expression give, angry disgusted sad etc",
        "My grandson sent me this snapshot. What is the expression on it, would you say?",
        "Describe briefly the emotional expression of the face.",
        "He makes a face but I don't know the english word for this emotion, what is it?",
        "Sum up this person's expression for me in a few words.",
        "What does this face say emotionally, in plain English?",
        "which emoji emotion matches the face, the sad one the angry one the shocked one or the smiley",
        "Identify the displayed emotion and tell me whether it looks strong or weak.",
        "quick one, expression?",
        "Looking only at the face, which emotion do you see there?",
        "Could you kindly tell me which feeling this lady's face is displaying?",
        "In a word, how does she look?",
        "pls name the emotoin on this face",
        "Which of the seven basic emotions best fits this photograph?",
        "Give me a label for the expression.",
        "return only the emotion class for this image",
        "yo whats the vibe on this face lol, like what emotion",
        "Sir, please, what is the sentiment shown by face in my picture?",
        "I'm captioning this portrait and need one sentence describing the facial expression.",
        "Describe the look on her face briefly.",
        "tell me what kinda face hes making",
        "For the record, state the emotion exhibited by the person depicted.",
        "I have trouble reading faces because I'm autistic. What is this one expressing?",
        "smiling or frowning overall? whats the mood of the face",
        "What would you say the man in the photo appears to be feeling, judging by his expression?",
        "ok classify it",
        "Can you put a name to this grimace?",
        "I need the predicted expression category, nothing else.",
        "how wud u describe this persons expresion in a few words",
        "We're playing guess-the-emotion in my year 3 class; what's the answer for this picture?",
        "I'm blind and my daughter uploaded her selfie. What expression is she wearing?",
        "Just the verdict please: which emotion?",
        "What sort of expression did the photographer capture here?",
        "Sum up this face for me.",
        "Hello! I am learning English. What is the correct word for the emotion of this face?",
        "Quick read on the facial expression, thanks",
        "Casting director here. Which emotion is my actor conveying in this headshot?",
        "If you had to stick an emoji on this expression, what emotion would it stand for?",
        "name that feeling!!",
        "I would be most grateful if you could identify the principal emotion visible in this countenance.",
        "Tell me the overall expression in this shot, short answer.",
        "Between contentment and sorrow, which one does the face show?",
        "So what have we got here, joy, rage, terror, something else?",
        "Which emotional expression am I looking at",
        "I drew this character's face from a photo reference but I can't decide what the expression is. What would you call it?",
        "Doing my psych homework: the emotion pictured in this face is ______?",
    ),
    "movement": (
        "Walk me through every movement visible on the face.",
        "Report the muscular configuration, item by item.",
        "Make me a bullet list of muscle movements",
        "I need an anatomical description of what this person's face is doing.",
        "which muscles are contracted",
        "Name the muscles at work beneath the skin in this shot.",
        "If I wanted to imitate this face in the mirror, what would I have to move?",
        "How are the brows, eyes, nose and mouth positioned?",
        "Would you please go over the observable facial actions one by one?",
        "Show me the action unit breakdown.",
        "List the AUs you can see, please.",
        "Can you walk me through the muscles being used on this face?",
        "I'm learning to do FACS coding and would like to compare notes. Which units did you pick up in this image?",
        "Tell me everything that's moving on the face, from forehead to chin.",
        "For animating a character I need to know exactly which parts of the face are engaged here.",
        "what facial muscles are working right now in the photo",
        "Please give me the action unit numbers along with their names.",
        "Break the face down into its individual muscle movements for me.",
        "Hey, quick one: how many action units are switched on in my picture, and which are they?",
        "Which action units are active?",
        "What facial muscles are being used?",
        "List the action units in this face.",
        "What facial movements do you see?",
        "Which AUs are present?",
        "which muscles is he moving in his face",
        "What muscles are active in this face?",
        "Describe the facial movements.",
        "Can you list all the facial action units shown here?",
        "what parts of the face are moving",
        "FACS code this face.",
        "AUs?",
        "Give me the AU list.",
        "Please provide the full FACS coding for this image, action unit numbers with names.",
        "Which facial action units can you detect in this photo?",
        "I'm an animator rigging this pose. Which face muscles do I need to activate to match it?",
        "Which blendshape-type facial movements, in action unit terms, make up this pose?",
        "what is her face doing, like which muscles",
        "What movements is the face making?",
        "Name every muscle that is contracting in this face.",
        "Could you please enumerate the facial movements that are visible in the picture?",
        "tell me what muscle of face is working please",
        "For my lab report I need the action units that are activated on this person's face.",
        "Break this face down into individual muscle movements.",
        "Don't tell me the emotion, only the action units.",
        "List active AUs, numbers only.",
        "As a nurse I chart facial movement for patients; which facial muscles are engaged in this photo?",
        "Which face muscles are tensed here, my dear?",
        "I would be grateful for a list of the muscle actions present on this face.",
        "so which au codes would a facs coder write down for this pic",
        "Which facial muscles are contracted and which movements do they produce?",
        "show me list of movement in the face",
        "What changes from a neutral face are visible, movement by movement?",
        "Action units present in this image?",
        "Prove you can do it: which action units would a certified coder score here?",
        "What's moving on this face compared with a relaxed one?",
        "give me all the face muscles shes using",
        "Detect the AUs",
        "Which muscle movements can be observed on the face of the person in this photo?",
        "I need a checklist of what each active facial muscle is doing in this shot.",
        "what is his eyebrows and his mouth doing",
        "List the AUs you can detect, comma separated please",
        "i need to copy this pose on my rig, which facial muscles are contracted?",
        "What parts of the face are moving, if you don't mind explaining it to an old man?",
        "Please give the FACS coding for this image.",
        "yo which muscles is she using to make that face",
        "Can you describe, from the forehead down to the chin, what each part of the face is doing?",
        "What muscles of the face are working here? My teacher asks for a list.",
        "Describe the visible facial movements only, without interpreting them.",
        "return the set of active AU codes",
        "We are learning the muscles of the face in class today. Which of them are at work in this photo?",
        "Fine, but which actual muscle movements do you claim to see?",
        "Anatomy revision: name the facial muscles engaged in this picture",
        "how are the lips, cheeks and lids shaped in this one",
        "What blendshapes would I need to turn on to match this face, brow, eyes, mouth?",
        "Which upper-face and which lower-face action units are present?",
        "What happens in the face around eyes and around mouth? which muscle is pulling?",
        "Set out the observable muscle movements on the subject's face.",
        "I'd like to describe the physical details of the expression to my readers: what are the brows, eyes and lips doing?",
        "which bits of the face are scrunched up or stretched?",
        "Tell me what's being raised, lowered, tightened or stretched in this face.",
        "What are the facial action units here? Include both number and name.",
        "what moves in the face, just bullet points",
        "Is it the brows, the nose or the mouth that's being moved, or several of them?",
        "For my drawing I need to know which muscles are tensed and where the skin gets pulled.",
        "How do the eyelids and the corners of the mouth sit at the moment?",
        "Would you score this face with the Facial Action Coding System for me?",
        "no emotion words please, just tell me what the muscles do",
        "Which facial muscles should I tell my actors to tense to get this exact face?",
        "Point out every part of the face that isn't at rest.",
        "so like what is the mouth doing and what are the eyes doing",
        "Could you please write which muscles in face are active on this image",
        "Give me a purely mechanical breakdown of the facial configuration.",
        "What did the person do with their face to make it look like that, muscle by muscle?",
        "I have trouble seeing small things. Is anything happening at the brows, the eyelids, the nose or the lips? Tell me what.",
        "detected action units for this frame?",
        "Which muscles are doing the work on the upper half of this face and which on the lower half?",
        "I don't trust labels. Show me the raw observations: which action units fire?",
        "list AUs",
        "Please provide the full FACS coding for this image.",
        "which bits of his face are moving and how",
        "I'm rigging a character. Which facial muscles are contracted in this reference photo?",
        "Can you tell me every facial movement you can detect?",
        "AU codes only, comma separated",
        "Name the muscle actions visible across the whole face.",
        "what is the face doing, like physically, brows eyes mouth everything",
        "As an anatomy student I'd like the list of mimetic muscles engaged here.",
        "give me the action unit breakdown plz",
        "Are there any action units firing, and if so what are their numbers and names?",
        "go top to bottom and say what each part of the face is doing",
        "Which muscels are working in this foto?",
        "Output a JSON array of active AUs.",
        "My drawing teacher says to note what's raised, lowered, tightened or stretched. Can you do that for this face?",
        "I need blendshape targets, so tell me which facial actions are present.",
        "What facial muscle movements are happening here, dear?",
        "which parts of the face are pulled up and which are pulled down",
        "Kindly enumerate the facial action units observed in the exhibit.",
        "FACS it for me",
        "Hi, I'm a certified coder checking my work. What AUs did you score on this one?",
        "Does the picture show brow raising, lid tightening, lip stretching, nose wrinkling? Say which of those you see.",
        "What muscle are moving in face of this man? Please write all.",
        "tell me all the tiny movements going on in this face",
        "How many action units are switched on and what are they?",
        "Run down the facial movements for me.",
        "What would I have to do with my own face muscles to copy this exactly?",
        "movements pls, not the emotion",
        "Physically speaking, what has changed from a resting face?",
        "Skip the feeling. Just list the muscle activations.",
        "I'm sculpting this bust in clay: which muscles are bunched up and which are slack?",
        "wich AUs r on",
        "Detected facial actions?",
        "Are the zygomatic, corrugator, frontalis or any other facial muscles contracting?",
        "Break the face down into its individual muscle motions.",
        "Teacher here, my pupils want to know which face muscles are switched on in the picture.",
        "what exactly is he doing with his eyebrows, eyelids, cheeks, nose, lips and chin?",
        "Show me the Ekman codes present in this photograph.",
        "bro just tell me what muscles r flexed on that face",
        "Could I have an inventory of the visible facial movements, upper and lower face both?",
        "As a speech therapist I'd find it handy to have all the facial muscle actions in this image written out.",
        "Point out each movement in the face, one per line.",
        "From forehead to chin, what's contracted?",
        "Print the active unit IDs with their descriptions.",
        "I want to know the mechanics: which features have shifted and in what direction?",
        "Any lips parted, jaw dropped, brows lowered? List everything that moved.",
        "We are animating a puppet after this photo. What facial motions should it copy?",
        "What facial action units can be seen, if you'd be so good?",
    ),
    "reasoning": (
        "Take me through the logic from action units to emotion.",
        "So some muscles moved, but why should that count as this emotion?",
        "Which movements were decisive for the verdict, and what do they tell us?",
        "Why is this expression classified as that emotion?",
        "Is there a typical AU pattern for this emotion, and how does this face match it?",
        "On what grounds do you call it that?",
        "How did you arrive at that label?",
        "Could you link each movement to the expression it helps create?",
        "Show your work: from movements to emotion.",
        "I'd be grateful for an account of how the expression comes out of the individual muscle actions.",
        "How did you come to that conclusion?",
        "And what about the face makes you say that?",
        "Explain how those action units add up to the emotion you picked.",
        "Hmm, I would have guessed something different. What tipped you towards this one?",
        "Could you please talk me through the link between the muscle movements and the expression you named?",
        "what gave it away",
        "I get that the brows are involved, but how does that turn into the expression you mentioned?",
        "Justify your answer using the facial movements.",
        "Which of the movements mattered most for your decision, and why that one?",
        "Interesting! So how do these little muscle changes combine to make the face look like that?",
        "Walk me from the AUs to the label, step by step.",
        "What's the evidence for that expression in the picture?",
        "My teacher wants reasons and not only labels, so what are the reasons here?",
        "how come that combination means this emotion and not another",
        "Really? Convince me. Point to the bits of the face that back it up.",
        "I see the units you listed. Now tell me what each one contributes to the overall expression.",
        "On what basis did you call it that?",
        "Why does this face look like that emotion?",
        "Explain why this expression reads the way it does.",
        "How can you tell what emotion this is?",
        "Why do you say it is that expression?",
        "What makes this face look the way it does emotionally?",
        "explain your reasoning",
        "What facial cues led you to that emotion?",
        "how do u know thats the emotion",
        "Which movements support your conclusion about the expression?",
        "Why this emotion and not another one?",
        "Explain how the action units add up to this expression.",
        "Walk me through how the facial movements lead to the emotion you see.",
        "What evidence on the face points to this expression?",
        "Justify your label using the action units.",
        "I don't buy it. What in the face makes you think it's that emotion?",
        "Could you please explain the basis on which you determined the expression?",
        "How do the muscle movements show the emotion?",
        "why u think this emotion explain me please",
        "Explain step by step why this face would be classified with this expression.",
        "What gives the expression away?",
        "My teacher wants us to justify the emotion label with facial evidence. How would you argue it for this face?",
        "How did you come to that conclusion about her expression?",
        "Which muscle movements make this read as the emotion it does, and why?",
        "From an animation point of view, why does this pose sell the emotion it sells?",
        "Please interpret the action units and explain what emotion they combine to show.",
        "how can u tell from the face what expression it is",
        "Tell me why the face expression is like this emotion, from what muscles you understand it.",
        "Darling, how can you tell from somebody's face like this which emotion it shows?",
        "Link the observed AUs to the emotion and explain the reasoning.",
        "Give the rationale for your emotion classification.",
        "What would I look for in this face to recognise the expression myself, and why does it mean that?",
        "Why does the combination of movements here signal this particular emotion?",
        "Reasoning behind the expression label?",
        "I'd have guessed something else, so explain which facial signs made you choose that emotion.",
        "Why should I believe that is the right emotion? Argue from the facial muscles.",
        "For the patient notes, explain how the visible facial movements justify the expression you named.",
        "why does it look like that expression, what in the face shows it",
        "Help me understand why these muscle actions together are read as this expression.",
        "In what way do the facial movements indicate the emotion?",
        "What about the face tells you the emotion?",
        "why is it that emotion and not a different one",
        "How do the action units you found lead to that emotion?",
        "And how on earth did you work that out from the face?",
        "Explain how the muscle movements support the expression you named.",
        "ok but how can u tell its that one",
        "On what facial evidence do you base the conclusion you just gave?",
        "How do you know which feeling the face shows? what did you look at to know?",
        "Walk me through your reasoning from the facial muscles to the label.",
        "I don't buy it. What in the face justifies that answer?",
        "Why did you chose this emotion? Which signs in the face are speaking for it?",
        "Could you explain to my class, step by step, why those movements together make this expression?",
        "what features drove that classification",
        "Which of the action units are the diagnostic ones for this emotion, and why?",
        "What makes the face read that way? I want my character to read the same.",
        "My readers will ask how you arrived at that expression. What should I tell them about the face?",
        "So what is it about the brows and mouth that makes you call it that?",
        "Why does this combination of muscles mean that expression?",
        "Justify your answer with reference to the facial movements.",
        "explain why u said that lol",
        "I would have said something different myself. Why do you think it's that expression, please?",
        "What rules out the other emotions in this face?",
        "Why that label? Link each AU to the emotion.",
        "Can you explain me why the face is this emotion, what muscles show it?",
        "Counsel will challenge your finding. Set out the grounds in the face on which it rests.",
        "how did you get from the muscles to the feeling word",
        "Give the rationale for the expression you assigned.",
        "Sounds like a guess to me, what's the argument for it?",
        "I'm teaching student nurses to read expressions: how do the facial signs add up to the one you named?",
        "Why would a FACS coder interpret this pattern as that emotion?",
        "what's the logic behind that prediction, from the AUs to the class",
        "But why? What did the face do that made you say so?",
        "Which clues in the face gave it away?",
        "Tell me the reason you picked that expression over a neutral one.",
        "That's interesting, and what's your thinking behind it?",
        "How is each of the movements related to the emotion that you said before?",
        "Why do these muscle actions taken together signal that emotion rather than any other?",
        "whats the proof in the face for what you just said",
        "Kindly explain what in the picture of the face made you decide on that emotion.",
        "Help me understand the connection between what the facial muscles are doing and the expression you told me.",
        "Explain how the muscle movements add up to that emotion.",
        "What evidence in the face supports your answer?",
        "Please walk me through the link between the action units and the expression.",
        "Which cues led you to pick that emotion and how do they fit together?",
        "Show your working: from facial movements to final expression.",
        "Help me understand the logic behind your classification of this expression.",
        "Rationale for the predicted class?",
        "How is each facial movement contributing to the expression overall?",
        "If the mouth is smiling, why did you choose that emotion for the face?",
        "Which of the movements was the deciding one for the emotion, and why?",
        "I want an explanation of the expression, not just its name: what about the face produces it?",
        "Interpretability check: explain the mapping from detected AUs to emotion for this image.",
        "Connect the dots for me between those eye and mouth movements and the emotion you named.",
        "The frown lines alone don't persuade me; what else in the face backs up your reading of the emotion?",
    ),
}
"""Held out too: written by five who had seen none of our patterns, the first ten of each by one; a
fourth wrote 39 (of the movements 38) beside those who added the last patterns, a fifth, after all
patterns, the last 36, 48 and 14, less what names an expression, which the face may not show."""


WORDINGS = Path(__file__).parent / "wordings"
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
CANONICAL_SHARE = 0.2
"""Share of questions asked in the very words in which an analysis asks them."""
NUMBERS = ("plural", "singular")
COMPOSED_SHARE = 0.35
"""Of the others the share that is put together: what tells the kind is the thing, not the frame."""
LED_IN, CLOSED = 0.15, 0.08
"""Shares of questions with other words before, and after, them."""


def bare(question: str) -> str:
    """Return a question's words without what people leave out when they type it."""
    return question.lower().strip(" ?.!")


_HELD_OUT = {bare(q) for held in (HELD_OUT, STRANGERS) for asked in held.values() for q in asked}


def is_held_out(question: str) -> bool:
    """Whether a question is one of the held-out ones after an analysis, however it is typed."""
    return bare(question) in _HELD_OUT


@cache
def wordings(name: str) -> tuple[str, ...]:
    """Return the patterns of wordings/NAME.txt."""
    return tuple((WORDINGS / f"{name}.txt").read_text("utf-8").splitlines())


def worded(name: str, patterns: Sequence[str], rng: random.Random) -> str:
    """Return one of these patterns, or of those of wordings/NAME.txt."""
    return rng.choice(patterns if rng.random() < 0.5 else wordings(name))


def expand(pattern: str, rng: random.Random) -> str:
    """Return the pattern with one option taken of every "[a|b]", the innermost first."""
    while choice := _CHOICE.search(pattern):
        option = rng.choice(choice.group(1).split("|"))
        pattern = pattern[: choice.start()] + option + pattern[choice.end() :]
    return pattern[:1].upper() + pattern[1:]


def as_typed(question: str, rng: random.Random) -> str:
    """Return a question as people type it: often in small letters, without its last mark."""
    if rng.random() < 0.2:
        question = question.rstrip("?.!")
    if rng.random() < 0.2:
        question = question.lower()
    return question


def disturbed(question: str, rng: random.Random) -> str:
    """Return a question of some length with, now and then, a word lost or made unreadable.

    No single word then carries the meaning, and a word never met does not change it.
    """
    words = question.split(" ")
    if len(words) < 6 or rng.random() < 0.75:
        return question
    at = rng.randrange(1, len(words) - 1)
    made = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 8)))
    words[at : at + 1] = [] if rng.random() < 0.4 else [made]
    return " ".join(words)


def in_a_message(question: str, rng: random.Random) -> str:
    """Return a question, now and then with words around it that change nothing of what it asks."""
    if rng.random() < LED_IN:
        lead = expand(rng.choice(wordings("before")), rng)
        goes_on = lead[-1] not in ".!?" and question[1:2].islower()
        question = f"{lead} {question[0].lower() + question[1:] if goes_on else question}"
    if rng.random() < CLOSED:
        question = f"{question} {expand(rng.choice(wordings('after')), rng)}"
    return question


def as_asked(question: str, rng: random.Random) -> str:
    """Return a pattern without slots as people may ask it: in a message, as they type."""
    return as_typed(in_a_message(expand(question, rng), rng), rng)


def plain_question(kind: str, rng: random.Random) -> str:
    """Return a question of one of the three kinds as it should be written, its wording drawn."""
    return filled(rng.choice(TEMPLATES[kind]), rng)


def filled(pattern: str, rng: random.Random) -> str:
    """Return the pattern with something drawn for each of its slots, expanded."""
    known = {"face": FACES, "person": PERSONS}

    def drawn(slot: re.Match) -> str:
        return rng.choice(known.get(slot[1]) or wordings(f"slots/{slot[1]}"))

    return expand(_SLOT.sub(drawn, pattern), rng)


def composed(kind: str, rng: random.Random) -> str:
    """Return a frame with the thing that a question of this kind asks for."""
    number = rng.choice(NUMBERS)
    thing = rng.choice(wordings(f"things/{kind}_{number}"))
    return rng.choice(wordings(f"frames/{number}")).replace("{thing}", thing)


def ask(kind: str, rng: random.Random) -> str:
    """Return a question of one of the three kinds, as people may type it."""
    if rng.random() < CANONICAL_SHARE:
        return TEMPLATES[kind][0]
    while True:
        if rng.random() < COMPOSED_SHARE:
            question = filled(composed(kind, rng), rng)
        else:
            question = disturbed(filled(worded(kind, TEMPLATES[kind], rng), rng), rng)
        if not is_held_out(question):
            return as_asked(question, rng)
