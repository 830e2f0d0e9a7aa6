"""The one public endpoint: a photo in, what the command line prints out.

gradio_client.Client(URL).predict(handle_file("photo.jpg"), api_name="/analyze")
"""

import gradio as gr

from feallm import Predictor
from feallm.__main__ import analyse_photo
from feallm.photos import BadPhoto
from feallm.predictor import QuestionTooLong
from page.handlers import FAILURES, question_problem, sentence_for, uploaded


class Api:
    """`analyze` around a predictor."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor

    def analyze(self, photo: dict | None, question: str = "") -> list[dict]:
        """Read the facial expression and the FACS action units of every face in a photo.

        Args:
            photo: A photo with one face or several: a data: address or an upload, never a URL.
            question: Optionally, a question about each face.

        Returns:
            One object per face, or one with an "error" that says why there is none.
        """
        question = (question or "").strip() or None
        if question and (problem := question_problem(question)):
            return [{"error": problem}]
        try:
            results = list(analyse_photo(self.predictor, uploaded(photo), False, question))
        except (BadPhoto, QuestionTooLong) as problem:
            return [{"error": str(problem)}]
        except FAILURES as error:
            return [{"error": sentence_for(error)}]
        for result in results:
            del result["photo"]  # the upload's name on this server says nothing
        return results

    def place(self, queue: dict) -> None:
        """Add the endpoint to the page being built; nothing of it is visible."""
        photo = gr.Image(type="filepath", visible=False, label="photo")
        question = gr.Textbox(visible=False, label="question")
        found = gr.JSON(visible=False, label="faces")
        gr.Button(visible=False).click(
            self.analyze, [photo, question], found, api_name="analyze", preprocess=False, **queue
        )
