"""What one visitor has: a photo, its faces, what was read in them and the talks about them."""

from dataclasses import dataclass, field

from PIL import Image

from feallm import views
from feallm.comparison import Comparison
from feallm.export import Entry
from feallm.faces import Face
from feallm.occlusion import Occlusion
from feallm.predictor import Reading
from feallm.suggestions import suggest


@dataclass
class Visit:
    """One visitor's photo and talks; the chat on the page is only a picture of `talks`.

    `reference` is a reading of an earlier photo that this one is compared with.
    """

    photo: Image.Image | None = None
    faces: list[Face] = field(default_factory=list)
    chosen: int = 0
    readings: dict[int, Reading] = field(default_factory=dict)
    talks: dict[int, list[dict]] = field(default_factory=dict)
    covered: dict[int, Occlusion] = field(default_factory=dict)
    reference: Reading | None = None

    @property
    def reading(self) -> Reading | None:
        return self.readings.get(self.chosen)

    @property
    def talk(self) -> list[dict]:
        return self.talks.setdefault(self.chosen, [])

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
        return [
            {"role": m["role"], "content": views.chat_text(m["content"])}
            for m in opening + self.talk
        ]

    def suggestions(self) -> list[str]:
        """Three questions that fit the chosen face and were not asked yet."""
        return suggest(self.reading, [m["content"] for m in self.talk if m["role"] == "user"])

    def entries(self) -> list[Entry]:
        """Every face that was read, for an export."""
        return [Entry(i + 1, r, self.talks.get(i, [])) for i, r in sorted(self.readings.items())]
