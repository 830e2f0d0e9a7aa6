"""What one visitor has: a photo, its faces, what was read in them and the talks about them."""

import io
import threading
import time
from dataclasses import dataclass, field, replace

from PIL import Image

from feallm import views
from feallm.comparison import Comparison
from feallm.export import Entry
from feallm.faces import Face, align_face, caveat
from feallm.occlusion import Occlusion
from feallm.predictor import Reading
from feallm.suggestions import suggest

SHOWN_SIDE = 1280
"""Longer side in pixels of the photo that is kept: to show and to export, not to read."""


@dataclass
class Question:
    """A question that waits for its answer, or is being answered.

    `before` is the turn that a second try takes the place of.
    """

    face: int
    text: str
    temperature: float = 0.0
    before: list[dict] = field(default_factory=list)
    _claim: threading.Lock = field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Begin the answer; False where another event did."""
        return self._claim.acquire(blocking=False)

    @property
    def started(self) -> bool:
        return self._claim.locked()


@dataclass
class Visit:
    """One visitor's photo and talks; the chat on the page is only a picture of `talks`.

    `portraits` are the aligned faces, cut from the photo at its full size. `reference` is a reading
    of an earlier photo that this one is compared with, `before` that photo's visit. A talk holds
    whole turns only: a question enters it together with its answer, which is marked "failed" where
    it is not the model's. `unread` are the faces whose reading failed. `stopped` counts answers
    that were stopped and whose events have not ended yet. `left` is set when the visitor has turned
    to another photo. `found_in` is how many seconds the search for faces took, as it is shown.
    """

    shown_photo: bytes = b""
    faces: list[Face] = field(default_factory=list)
    portraits: list[Image.Image] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    reference: Reading | None = None
    chosen: int = 0
    readings: dict[int, Reading] = field(default_factory=dict)
    talks: dict[int, list[dict]] = field(default_factory=dict)
    covered: dict[int, Occlusion] = field(default_factory=dict)
    asked: Question | None = None
    before: "Visit | None" = None
    unread: set[int] = field(default_factory=set)
    stopped: int = 0
    left: bool = False
    found_in: str = ""
    begun: float = field(default_factory=time.time)

    @classmethod
    def of(
        cls, photo: Image.Image, faces: list[Face], face_size: int, reference: Reading | None
    ) -> "Visit":
        """Return a visit that keeps what is needed of a photo, and not its twelve megapixels."""
        portraits = [align_face(photo, face, face_size) for face in faces]
        caveats = [caveat(face, photo) for face in faces]
        scale = min(1.0, SHOWN_SIDE / max(photo.size))
        small = photo.resize((round(photo.width * scale), round(photo.height * scale)))
        shown = io.BytesIO()
        small.save(shown, "JPEG", quality=90)  # a tenth of its pixels' size, for each visitor
        moved = [
            replace(f, box=tuple(v * scale for v in f.box), landmarks=f.landmarks * scale)
            for f in faces
        ]
        return cls(shown.getvalue(), moved, portraits, caveats, reference)

    @property
    def photo(self) -> Image.Image:
        """The photo, no larger than it is shown."""
        return Image.open(io.BytesIO(self.shown_photo))

    @property
    def reading(self) -> Reading | None:
        return self.readings.get(self.chosen)

    @property
    def talk(self) -> list[dict]:
        return self.talks.setdefault(self.chosen, [])

    @property
    def oldest(self) -> float:
        """When the oldest photo it holds came."""
        return min(self.begun, self.before.oldest) if self.before else self.begun

    def drop(self) -> bool:
        """Take the question back; True where no answer to it was begun.

        What was written stays; a turn that was to be tried again comes back.
        """
        question, self.asked = self.asked, None
        waiting = question is not None and not question.started
        if waiting:
            self.talks.setdefault(question.face, []).extend(question.before)
        return waiting

    def told(self, face: int) -> list[dict]:
        """The talk about a face as the model is told it: without what is not its own."""
        talk = self.talks.get(face, [])
        turns = zip(talk[::2], talk[1::2], strict=True)
        return [m for turn in turns if not turn[1].get("failed") for m in turn]

    @property
    def comparison(self) -> Comparison | None:
        both = self.reference and self.reading
        return Comparison(self.reference, self.reading) if both else None

    def shown(self) -> list[dict]:
        """The chosen face's talk as the chat shows it, the model's first description on top."""
        opening = []
        if self.reading:
            described = f"{self.reading.summary} {self.reading.movements}"
            opening = [{"role": "assistant", "content": described}]
        waiting = []
        if self.asked and self.asked.face == self.chosen and not self.asked.started:
            waiting = [{"role": "user", "content": self.asked.text}]
        return [
            {"role": m["role"], "content": views.chat_text(m["content"])}
            for m in opening + self.talk + waiting
        ]

    def suggestions(self) -> list[str]:
        """Three questions that fit the chosen face and were not asked yet."""
        asked = [m["content"] for m in self.talk if m["role"] == "user"]
        return suggest(self.reading, asked + ([self.asked.text] if self.asked else []))

    def entries(self) -> list[Entry]:
        """Every face that was read, for an export."""
        return [Entry(i + 1, r, self.talks.get(i, [])) for i, r in sorted(self.readings.items())]
