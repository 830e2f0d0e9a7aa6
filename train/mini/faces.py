"""The packed faces as a dataset, and the augmentation that turns canvases into model inputs.

One augmentation serves every stage. It draws each face aligned by MediaPipe's points, or as our own
detector aligns it, or as an unaligned crop, and then lives through what uploads do to pictures:
turned, shifted, tinted, greyed, blurred, made small, darkened, covered.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import Dataset

from feallm import FEALLMProcessor
from feallm.alignment import invert
from feallm.crops import cut_crops
from feallm.faces import draw
from train.mini.prepare import CANVAS, EXPRESSIONS, MARGIN, SETS

MIRRORED_BLENDSHAPES = (
    *((1, 2), (4, 5), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16), (17, 18), (19, 20), (21, 22)),
    *(
        (24, 26),
        (28, 29),
        (30, 31),
        (33, 39),
        (34, 35),
        (36, 37),
        (44, 45),
        (46, 47),
        (48, 49),
        (50, 51),
    ),
)
"""Left and right partners in MediaPipe's list of 52."""
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
"""Pillow's weights of red, green and blue in a grey picture."""
EXPW_MET = {
    "neutral": 34_883, "anger": 3_671, "disgust": 3_995, "fear": 1_088, "happiness": 30_537,
    "sadness": 10_559, "surprise": 7_060,
}  # fmt: skip
"""How often all 91,793 faces of ExpW show each expression; our part holds all alike."""
PACKED = ("canvas", "frame", "used", "votes", "blendshapes", "points")
TAUGHT = 0.5
"""Share of the teachers' mean reading in a face's votes."""
POINTS = tuple(range(0, 478, 7))
"""The face points the side task predicts: every seventh of the 478."""


def grey(canvas: torch.Tensor) -> torch.Tensor:
    """Return a (1 or 3, H, W) picture with one channel, as Pillow's "L" mode has it."""
    return canvas if len(canvas) == 1 else (canvas * LUMA).sum(0, keepdim=True)


class Faces(Dataset):
    """Packed faces of one split with their labels.

    An item is a dict: `canvas` (144, 144, 1 or 3) uint8, `frame` and `used` (2, 3) maps (see
    `prepare.pack_face`), `votes` (7,) of sum 1, `aus` (12,) in [0, 1], `blendshapes` (52,),
    `points` (P, 2) on the canvas, `found` (whether the last three mean anything).
    """

    def __init__(
        self,
        packs: Path,
        split: str,
        sets: tuple[str, ...] = SETS,
        teachers: Sequence[Path] = (),
    ):
        labels = np.load(packs / "aus.npz")
        readings = [np.load(file) for file in teachers]
        self.parts, self.index = {}, []
        for name in sets:
            if not (packs / f"{name}.npz").is_file():
                continue
            if name == "ckplus_validation" and split == "train":
                continue  # its licence and our promise: never trained on
            pack = dict(np.load(packs / f"{name}.npz"))
            if not set(PACKED) <= pack.keys():
                raise ValueError(
                    f"{packs}/{name}.npz is of an older layout: run train.mini.prepare again."
                )
            votes = pack["votes"].astype(np.float32)
            keep = (pack["split"] == split) & (votes.sum(1) > 0)
            pack["votes"] = votes / np.maximum(votes.sum(1, keepdims=True), 1)
            if readings:
                read = np.mean([file[name] for file in readings], axis=0)
                mixed = (1 - TAUGHT) * pack["votes"] + TAUGHT * read
                pack["votes"] = np.where(np.isnan(read), pack["votes"], mixed).astype(np.float32)
            pack["levelled"] = labels[name]
            pack["points"] = pack["points"][:, list(POINTS)]
            self.index += [(name, int(i)) for i in np.flatnonzero(keep)]
            self.parts[name] = pack
        if not self.index:
            raise FileNotFoundError(
                f"{packs} holds no {split} faces: run train.mini.prepare first."
            )

    def save_readings(self, file: Path, readings: np.ndarray) -> None:
        """Write what a model read (n, 7) so that other `Faces` find it; NaN where it read none."""
        read = {
            name: np.full((len(part["votes"]), 7), np.nan, np.float32)
            for name, part in self.parts.items()
        }
        for (name, k), reading in zip(self.index, readings, strict=True):
            read[name][k] = reading
        np.savez_compressed(file, **read)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> dict[str, np.ndarray | bool]:
        name, k = self.index[i]
        pack = self.parts[name]
        item = {n: pack[n][k] for n in PACKED}
        return item | {"aus": pack["levelled"][k], "found": bool(pack["found"][k]), "index": i}

    def picture(self, i: int) -> Image.Image:
        """The face as `faces.face_of_crop` draws it, 96 pixels wide."""
        item = self[i]
        canvas = Image.fromarray(item["canvas"].squeeze()).convert("RGB")
        return draw(canvas, invert(item["used"].astype(float)), 96)

    def coded_units(self) -> np.ndarray:
        """(n, 12) bools: the action units FACS coders found; only CK+ has them."""
        return np.array([self.parts[p]["aus"][k] > 0 for p, k in self.index])

    def people(self) -> np.ndarray:
        """(n,) who each face belongs to; "" where the set does not say."""
        return np.array([self.parts[p]["group"][k] for p, k in self.index])

    def majority(self) -> np.ndarray:
        """(n,) index of each face's expression."""
        return np.array([self.parts[p]["votes"][k].argmax() for p, k in self.index])

    def sampling_weights(self, power: float, as_met: float = 0.0) -> np.ndarray:
        """(n,) weights that lift rare expressions: frequency to the minus `power`.

        With `as_met` 1 each expression of the photos of the web (ExpW) weighs as often as they are
        met, with less in between; together they weigh as much.
        """
        expression = self.majority()
        count = np.bincount(expression, minlength=len(EXPRESSIONS))
        weights = (1.0 / np.maximum(count, 1) ** power)[expression]
        web = np.array([name == "expw" for name, _ in self.index])
        if as_met and web.any():
            held = np.bincount(expression[web], minlength=len(EXPRESSIONS))
            met = np.array([EXPW_MET[e] for e in EXPRESSIONS])
            lifted = weights[web] * (met / np.maximum(held, 1))[expression[web]] ** as_met
            weights[web] = lifted * weights[web].sum() / lifted.sum()
        return weights


class Augment:
    """Turn items into a batch; `train=False` only aligns, as the detector in use does.

    Args:
        size: side of the aligned face in pixels.
        crop_size, crop_groups: the model's local crops.
        mean, std: the processor's normalisation, three numbers each.
        used: share of faces drawn as the detector in use aligns them.
        unaligned: share of faces drawn as unaligned crops.
        strength: 1 moves and disturbs as far as the worst uploads; less does it less, and seldomer.
        greyscale: take the colour out, as the processor's `greyscale` does.
    """

    def __init__(
        self,
        *,
        size,
        crop_size,
        crop_groups,
        mean,
        std,
        train,
        used=0.45,
        unaligned=0.1,
        strength=1.0,
        greyscale=False,
    ):
        self.size, self.crop_size, self.crop_groups = size, crop_size, crop_groups
        self.mean, self.std = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
        self.train, self.greyscale = train, greyscale
        self.used, self.unaligned, self.strength = used, unaligned, strength

    @classmethod
    def of(cls, processor: FEALLMProcessor, **options) -> "Augment":
        """Return the augmentation of a processor's inputs; `options` are those left to choose."""
        images = processor.image_processor
        return cls(
            size=processor.face_size,
            crop_size=processor.crop_size,
            crop_groups=processor.crop_groups,
            mean=images.image_mean,
            std=images.image_std,
            greyscale=processor.greyscale,
            **options,
        )

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        canvases = [torch.from_numpy(i["canvas"]).permute(2, 0, 1) for i in items]
        if self.greyscale:  # one channel is a third of the work, up to the model's input
            canvases = [grey(c) for c in canvases]
        else:
            canvases = [c.expand(3, -1, -1) for c in canvases]
        canvas = torch.stack(canvases).float() / 255  # (B, 1 or 3, 144, 144)
        place, flipped = self._places(items)
        faces = self._draw(canvas, place)
        points = torch.from_numpy(np.stack([i["points"] for i in items]))
        points = self._move(points, place)
        shapes = torch.from_numpy(np.stack([i["blendshapes"] for i in items]))
        if self.train:
            faces = self._photometry(faces)
            swap = torch.arange(52)
            for a, b in MIRRORED_BLENDSHAPES:
                swap[a], swap[b] = b, a
            shapes = torch.where(flipped[:, None], shapes[:, swap], shapes)
        found = torch.tensor([i["found"] for i in items])
        return self.inputs(faces) | {
            "votes": torch.from_numpy(np.stack([i["votes"] for i in items])),
            "aus": torch.from_numpy(np.stack([i["aus"] for i in items])),
            "blendshapes": shapes,
            "points": points,
            "has_shapes": found,
            "has_points": found & ~flipped,  # mirrored points would have changed their names
            "index": torch.tensor([i["index"] for i in items]),
        }

    def inputs(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        """Normalise faces (B, 1 or 3, S, S) in [0, 1] and cut their crops, if there are any."""
        if faces.shape[1] == 1 and (self.mean.unique().numel(), self.std.unique().numel()) == (
            1,
            1,
        ):
            pixels = (faces - self.mean[:, :1]) / self.std[:, :1]
        else:
            pixels = (faces - self.mean) / self.std
        inputs = {"pixel_values": pixels.expand(-1, 3, -1, -1)}
        if self.crop_groups:
            crops = cut_crops(pixels, self.crop_groups, self.crop_size)
            inputs["pixel_values_local"] = crops.expand(-1, -1, 3, -1, -1)
        return inputs

    def _places(self, items: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, 3) maps from the face's square to the canvas, and which faces are mirrored."""
        n, size = len(items), self.size
        scale = CANVAS / MARGIN / size
        shift = (CANVAS - CANVAS / MARGIN) / 2
        aligned = torch.tensor([[scale, 0, shift], [0, scale, shift], [0, 0, 1.0]])
        place = aligned.repeat(n, 1, 1)
        # validation: `used` for every face
        drawn = torch.rand(n) if self.train else torch.full((n,), self.unaligned)
        for kind, low, high in (
            ("frame", 0.0, self.unaligned),
            ("used", self.unaligned, self.unaligned + self.used),
        ):
            maps = torch.from_numpy(np.stack([i[kind] for i in items]))
            maps = maps * torch.tensor([96 / size, 96 / size, 1.0])
            chosen = ((drawn >= low) & (drawn < high))[:, None, None]
            place = torch.where(chosen, torch.cat([maps, place[:, 2:]], dim=1), place)
        if not self.train:
            return place, torch.zeros(n, dtype=torch.bool)
        flipped = torch.rand(n) < 0.5
        spread = self.strength
        angle = torch.randn(n) * 0.08 * spread
        zoom = torch.exp(torch.randn(n) * 0.08 * spread)
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        mirror = torch.where(flipped, -1.0, 1.0)
        centre, zero, one = size / 2, torch.zeros(n), torch.ones(n)
        move = torch.randn(2, n) * 0.03 * spread * size
        jitter = torch.stack(
            [cos * mirror, -sin, zero, sin * mirror, cos, zero, zero, zero, one], -1
        )
        jitter = jitter.view(n, 3, 3)
        jitter[:, :2, 2] = centre + move.T - (jitter[:, :2, :2] * centre).sum(-1)
        return place @ jitter, flipped

    def _draw(self, canvas: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        size = self.size
        line = torch.arange(size) + 0.5
        y, x = torch.meshgrid(line, line, indexing="ij")
        grid = torch.stack([x.flatten(), y.flatten(), torch.ones(size * size)], -1)  # (S*S, 3)
        at = grid @ place[:, :2].transpose(1, 2)  # (B, S*S, 2) on the canvas
        at = (2 * at / CANVAS - 1).view(-1, size, size, 2)
        return F.grid_sample(canvas, at, padding_mode="border", align_corners=False)

    def _move(self, points: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """Canvas points -> the face's square, as fractions around its centre, in [-1, 1]."""
        back = torch.linalg.inv(place)
        ones = torch.ones_like(points[..., :1])
        moved = torch.cat([points, ones], -1) @ back[:, :2].transpose(1, 2)
        return 2 * moved / self.size - 1

    def _photometry(self, faces: torch.Tensor) -> torch.Tensor:
        n, spread = len(faces), self.strength

        def some(share: float) -> torch.Tensor:
            return (torch.rand(n) < share * spread).view(n, 1, 1, 1)

        if faces.shape[1] == 3:
            mean = faces.mean(1, keepdim=True).expand_as(faces)
            faces = torch.where(some(0.25), mean, faces)
            tint = 1 + torch.randn(n, 3, 1, 1) * 0.08
            faces = torch.where(some(0.2), faces * tint, faces)
        gamma = torch.exp(torch.randn(n, 1, 1, 1) * 0.15 * spread)
        faces = faces.clamp(1e-3, 1) ** gamma
        mean = faces.mean((1, 2, 3), keepdim=True)
        contrast = torch.exp(torch.randn(n, 1, 1, 1) * 0.15 * spread)
        faces = (faces - mean) * contrast + mean + torch.randn(n, 1, 1, 1) * 0.06 * spread
        ramp = torch.linspace(-1, 1, self.size)
        light = torch.randn(n, 1, 1, 1) * ramp.view(1, 1, 1, -1) + torch.randn(
            n, 1, 1, 1
        ) * ramp.view(1, 1, -1, 1)
        faces = torch.where(some(0.2), faces * (1 + 0.2 * light), faces)
        side = int(
            torch.randint(self.size // 4, self.size, ())
        )  # one small size for this batch's share
        small = F.interpolate(faces, (side, side), mode="bilinear", antialias=True)
        small = F.interpolate(small, (self.size, self.size), mode="bilinear")
        faces = torch.where(some(0.2), small, faces)
        faces = faces + torch.where(some(0.15), torch.randn(faces.shape) * 0.03, torch.zeros(()))
        covered = torch.rand(n) < 0.1 * spread
        for i in covered.nonzero().flatten().tolist():
            h, w = (int(self.size * (0.1 + 0.3 * torch.rand(()))) for _ in range(2))
            y, x = (
                int(torch.randint(0, self.size - h, ())),
                int(torch.randint(0, self.size - w, ())),
            )
            faces[i, :, y : y + h, x : x + w] = torch.rand(faces.shape[1], 1, 1)
        return faces.clamp(0, 1)
