"""The fixed input of golden.py: what goes before each step, by hand where a network would make it."""

from pathlib import Path

import numpy as np
import torch

from semisup import images, models, schemas, settings, tables, tars
from semisup.features import pack
from semisup.samples import read_samples
from semisup.scores import write_scores
from semisup.selection import Ranked
from semisup.steps import index_shards
from small import square

CLASSES = ["ant", "bee", "cow"]
ARCH = "cifar_resnet8_w4"
PARTS = [("u", 0), ("u", 1), ("u", 2), ("d", 0)]  # of one shard each

# Dataset, part and row of an image, and the one it is a copy of, or close to.
SAME = [
    (("u", 0, 0), ("d", 0, 0)),
    (("u", 1, 2), ("d", 0, 5)),
    (("u", 2, 0), ("u", 1, 1)),
    (("u", 0, 5), ("u", 0, 4)),
]
CLOSE = [
    (("u", 0, 3), ("u", 0, 1)),
    (("u", 1, 5), ("u", 0, 1)),
    (("u", 1, 4), ("d", 0, 7)),
    (("u", 1, 3), ("d", 0, 8)),
]


def picture(seed: int, scale: int = 1) -> bytes:
    """Pixels as they are: no encoder has a say."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), np.uint8)
    pixels = pixels.repeat(scale, 0).repeat(scale, 1)
    return b"P6 %d %d 255\n" % (8 * scale, 9 * scale) + pixels.tobytes()


def prepare() -> None:
    """Tars and their index, weights, a folder of photographs, scores, features; in this order."""
    for shard in range(2):
        samples = [
            (f"u{i}", {"ppm": picture(10 * shard + i), "cls": b"%d" % (i % 3)}) for i in range(6)
        ]
        tars.write_tar(Path(f"u-{shard}.tar"), samples)
    broken = [("copy", {"ppm": picture(11)}), ("empty", {"ppm": b""}), ("none", {"json": b"{}"})]
    tars.write_tar(Path("u-2.tar"), broken)
    labelled = [(f"d{i}", {"ppm": picture(i // 2), "cls": b"%d" % (i % 3)}) for i in range(9)]
    tars.write_tar(Path("d-0.tar"), labelled)
    large = [(f"e{i}", {"ppm": picture(i, 5), "cls": b"0"}) for i in range(3)]
    tars.write_tar(Path("e-0.tar"), large)
    for name, part in [*PARTS, ("e", 0)]:
        index(name, part)
    for name in ("a/1.ppm", "a/2.ppm", "b/1.ppm"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).write_bytes(picture(len(name)))
    rng = np.random.default_rng(5)
    model = models.build(ARCH, len(CLASSES))
    state = {}
    for name, tensor in model.state_dict().items():
        values = rng.normal(0, 0.3, tuple(tensor.shape))
        positive = name.endswith(("running_var", "num_batches_tracked"))
        made = np.asarray(np.abs(values) + 0.05 if positive else values)
        state[name] = torch.tensor(made, dtype=tensor.dtype)
    models.save(Path("weights.pt"), models.Weights(ARCH, square(8), CLASSES, state))
    torch.save(state, "checkpoint.pth")
    models.write_classes(Path("classes.txt"), CLASSES)
    for part in range(3):
        write_part(part)
    describe()
    write_crowd()


def index(name: str, part: int) -> None:
    made = settings.IndexShards(
        dataset=name, part=part, first_shard=part, shards=[f"{name}-{part}.tar"], num_classes=3,
        max_pixels=images.MAX_PIXELS, stamp="",
    )  # fmt: skip
    folder = Path("index", name)
    index_shards.main(
        made, folder / f"manifest-{part:05d}.json", folder / f"samples-{part:05d}.parquet"
    )


def write_part(part: int) -> None:
    """Scores that no network made."""
    num_ok, rng = (6, 6, 1)[part], np.random.default_rng([3, part])
    identity = (np.int64(part) << 32) + np.arange(num_ok)
    classes = np.array([rng.permutation(3)[:2] for _ in range(num_ok)], np.int16)
    log_odds = -np.sort(-rng.normal(0, 3, (num_ok, 2)).astype(np.float32), axis=1)
    ranks = np.tile(np.array([1, 2], np.int8), num_ok)
    rows = Ranked(classes.ravel(), log_odds.ravel(), np.repeat(identity, 2), ranks)
    write_scores(Path(f"scores/part-{part:05d}.parquet"), rows, "by hand")
    failed = 2 if part == 2 else 0
    columns = {
        "shard_id": [part] * (num_ok + failed),
        "sample_index": range(num_ok + failed),
        "logsumexp": np.zeros(num_ok + failed, np.float32),
        "status": ["ok"] * num_ok + ["empty", "missing_image"][:failed],
        "reason": [""] * num_ok + ["no bytes", "no image"][:failed],
    }
    tables.write_table(Path(f"scores/images-{part:05d}.parquet"), columns, schemas.IMAGES)


def describe() -> None:
    """Features and fingerprints that no network and no pixels made."""
    rng = np.random.default_rng(8)
    vectors, hashes, samples = {}, {}, {}
    for at in PARTS:
        name, part = at
        samples[at] = read_samples([Path(f"index/{name}/manifest-{part:05d}.json")]).table
        vectors[at] = rng.normal(0, 1, (len(samples[at]), 8))
        hashes[at] = rng.integers(-(2**63), 2**63, (len(samples[at]), 3))
    for (*at, row), (*other, first) in SAME + CLOSE:
        vectors[*at,][row] = vectors[*other,][first]
        hashes[*at,][row] = hashes[*other,][first]
    for (*at, row), _ in CLOSE:
        vectors[*at,][row] += rng.normal(0, 0.05, 8)
        hashes[*at,][row] ^= [row, 1, 0b11]
    for at, table in samples.items():
        ok = table["size_bytes"].to_numpy() > 0
        identity = {name: table[name].to_numpy() for name in ("shard_id", "sample_index")}
        told = np.where(ok[:, None], hashes[at], 0)
        fingerprints = {
            "pixel_hash": [row.tobytes() for row in told[:, :2]],
            "perceptual_hash": told[:, 2],
        }
        status = {
            "status": [tars.OK if one else "missing_image" for one in ok],
            "reason": ["" if one else "no image" for one in ok],
        }
        columns = identity | fingerprints | status
        path = Path("features/hand", at[0], f"images-{at[1]:05d}.parquet")
        tables.write_table(path, columns, schemas.DESCRIBED)
        columns = {name: column[ok] for name, column in identity.items()}
        columns |= {"feature": pack(normalised(vectors[at][ok]))}
        path = path.with_name(f"part-{at[1]:05d}.parquet")
        tables.write_table(path, columns, schemas.FEATURES)


def write_crowd() -> None:
    """Features of more images, in three heaps."""
    rng = np.random.default_rng(9)
    for part in range(2):
        vectors = rng.normal(0, 0.1, (100, 8))
        vectors[np.arange(100), np.arange(100) % 3] += 1
        columns = {"shard_id": [part] * 100, "sample_index": range(100)}
        path = Path(f"crowd/part-{part:05d}.parquet")
        columns |= {"feature": pack(normalised(vectors))}
        tables.write_table(path, columns, schemas.FEATURES)


def normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt((vectors**2).sum(1, keepdims=True))
