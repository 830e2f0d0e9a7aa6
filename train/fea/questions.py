"""Question templates of the three instruction types (paper: "more than ten" each; two are quoted).

The quoted two are "Please describe the expression in this face." and "Please describe the action
units in this face."; all others are ours. `{face}` takes one of `FACES`. The held-out paraphrases
are never trained on; `train.evaluate` asks them to see whether the model understands the question
or only recognises it.
"""

import random

from feallm.prompts import (
    ACTION_UNITS_QUESTION,
    EXPRESSION_QUESTION,
    MOVEMENT_QUESTION,
    REASONING_QUESTION,
    SUMMARY_QUESTION,
)

FACES = ("this face", "the face", "the picture", "this photo", "the person's face", "this image")

SUMMARY = (
    SUMMARY_QUESTION,
    "Please describe the expression in {face}.",
    "What expression does {face} show?",
    "What emotion is visible in {face}?",
    "Which emotion can you see in {face}?",
    "How does this person look?",
    "Describe the emotion you see in {face}.",
    "What is the facial expression in {face}?",
    "Can you tell me the emotion in {face}?",
    "Summarise the emotion in {face}.",
    "What mood does {face} express?",
    "Which of the basic expressions fits {face}?",
    "Tell me about the expression in {face}.",
    "What does {face} express?",
    "What emotion is this?",
    "What emotion is this, and why?",
    "Is this person happy, sad or something else?",
    "How would you classify the expression in {face}?",
    "What is this person showing?",
    "Give a short description of the expression in {face}.",
)
MOVEMENT = (
    MOVEMENT_QUESTION,
    "Please describe the action units in {face}.",
    "Which action units are active in {face}?",
    "Which action units are active?",
    "What facial movements can you see in {face}?",
    "Which facial muscles are moving in {face}?",
    "Describe the facial movements in {face}.",
    "List the action units you see in {face} and describe them.",
    "What are the FACS codes for {face}?",
    "Can you code {face} in FACS?",
    "Which AUs are present in {face}?",
    "What do the muscles of {face} do?",
    "Tell me about the muscle movements in {face}.",
    "Give the active AUs of {face} with a description.",
    "How is {face} moving?",
    "Describe what the brows, the eyes and the mouth do in {face}.",
    "Which muscles are contracted in {face}?",
    "Analyse the facial actions in {face}.",
)
REASONING = (
    REASONING_QUESTION,
    "How do the action units lead to this expression?",
    "Why does {face} show this expression?",
    "Why do you say so?",
    "Why?",
    "Explain how the action units support the expression in {face}.",
    "What is the link between the movements and the emotion in {face}?",
    "How do you get from the muscles to the emotion?",
    "Give the reasoning behind your judgement of {face}.",
    "Which movements speak for this emotion, and how?",
    "Reason from the action units of {face} to its expression.",
    "What makes you think so?",
    "Explain your answer.",
    "How does each action unit bear on the expression in {face}?",
    "What evidence does {face} give for this expression?",
    "On what do you base the expression of {face}?",
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


def ask(kind: str, rng: random.Random) -> str:
    """Return a question of one of the three kinds, its wording drawn at random."""
    return rng.choice(TEMPLATES[kind]).format(face=rng.choice(FACES))
