"""Hostile tars and images: no crash, no hang, no sample without a status.

1,000 images and half as many tars; `SEMISUP_FUZZ_CASES=100000 pytest tests/test_fuzz.py` looks for new ones each time.
"""

import functools
import os
import signal
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semisup import images, loader, tables, tars
from semisup import settings as step_settings
from semisup.books import dataset_books
from semisup.samples import read_range, read_samples
from semisup.steps import index_shards
from small import encode, make_jpeg
from test_images import KINDS, png_header

CASES = int(os.environ.get("SEMISUP_FUZZ_CASES", "1000"))
SECONDS = 20
MAX_PIXELS = 100_000
STATUSES = {tars.OK, tars.BAD_LABEL, tars.MISSING_IMAGE, tars.TRUNCATED_TAR}

fuzz = functools.partial(
    settings,
    derandomize=CASES == 1000,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

SEEN: Counter[str] = Counter()

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
PICTURES = [
    *(encode(PICTURE, format) for format in images.FORMATS),
    encode(PICTURE, "TIFF", compression="tiff_lzw"),
    encode(PICTURE, "JPEG", progressive=True),
    encode(PICTURE[..., 0], "PNG"),
    make_jpeg(1),
    png_header(2**31 - 1, 2**31 - 1),
    png_header(50_000, 2),
    b"",
    b"no image",
]


@st.composite
def damaged(draw: Callable[..., Any], contents: list[bytes] = PICTURES) -> bytes:
    """Some bytes with a few of them changed, cut out, doubled, or the end missing."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, 4))):
        if not content:
            break
        place = draw(st.integers(0, len(content) - 1))
        kind = draw(st.sampled_from(["set", "cut", "double", "end", "insert"]))
        if kind == "set":
            content[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place : place + draw(st.integers(1, 40))]
        elif kind == "double":
            content[place:place] = content[place : place + draw(st.integers(1, 600))]
        elif kind == "end":
            del content[place:]
        else:
            content[place:place] = draw(st.binary(max_size=12))
    return bytes(content)


NAMES = [
    "a.jpg", "a.png", "a.cls", "a.JPG", "b.jpg", "b.cls", "../../escape.jpg", "/etc/cron.d/evil.jpg",
    "..\\up.jpg", "./x.jpg", "$(touch pwned).jpg", "`touch pwned`.png", "; rm -rf ~;.jpg", "-rf.jpg",
    "<script>alert(1)</script>.jpg", "a\nb.jpg", "\udcff\udcfe.jpg", "é.png", ".jpg", "a.", "a",
    "x" * 150 + ".jpg", "d/e.f/g.h.jpg", "a.jpg.cls", " .jpg", "\x01.jpg", "a.json",
]  # fmt: skip
TYPES = [tarfile.REGTYPE] * 8 + [
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
    tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE, b"x", b"g", b"L", b"Z",
]  # fmt: skip
SIZES = [0, 1, 511, 512, 513, 10**6, 8**11 - 1, 2**40, 2**63 - 1]


@st.composite
def hostile_tar(draw: Callable[..., Any]) -> bytes:
    """Members of any name, kind and claimed size around real and broken images."""
    whole = bytearray()
    for _ in range(draw(st.integers(0, 6))):
        name = draw(st.sampled_from(NAMES) | st.text(max_size=8).map(lambda name: f"{name}.jpg"))
        content = draw(damaged())
        if name.endswith(".cls"):
            content = draw(st.sampled_from([b"1", b"-1", b"99", b"", b"one", b"9" * 400]))
        info = tarfile.TarInfo(name.replace("\0", ""))
        info.type = draw(st.sampled_from(TYPES))
        info.linkname = draw(st.sampled_from(["/etc/passwd", "../x", "a.jpg", ""]))
        honest = draw(st.integers(0, 9)) > 0
        info.size = len(content) if honest else draw(st.sampled_from(SIZES))
        format = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
        try:
            whole += info.tobuf(format, errors="surrogateescape")
        except (ValueError, UnicodeError):
            continue
        whole += content + bytes(-len(content) % 512)
    whole += bytes(draw(st.sampled_from([0, 512, 1024, 10_240])))
    return draw(damaged([bytes(whole)])) if draw(st.integers(0, 2)) == 0 else bytes(whole)


@contextmanager
def no_hang() -> Iterator[None]:
    """Whatever it is, it must not take long."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"longer than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@fuzz(max_examples=CASES)
@given(damaged() | st.binary(max_size=300))
def test_any_bytes_are_an_image_or_a_failure_with_a_kind(content: bytes) -> None:
    with no_hang():
        try:
            pixels = loader.decode(content, MAX_PIXELS)
        except images.ImageError as error:
            assert error.kind in KINDS
            assert str(error)
        else:
            assert pixels.shape[0] == 3
            assert pixels.shape[1] * pixels.shape[2] <= MAX_PIXELS


@fuzz(max_examples=CASES // 2)
@given(hostile_tar(), st.sampled_from([None, None, 3]))
def test_any_tar_is_indexed_and_its_books_balance(
    tmp_path_factory: Any, content: bytes, num_classes: int | None
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    (folder / "in").mkdir(parents=True, exist_ok=True)
    path = folder / "in" / "a.tar"
    path.write_bytes(content)
    made = step_settings.IndexShards(
        dataset="u", part=0, first_shard=0, shards=[str(path)], num_classes=num_classes,
        max_pixels=MAX_PIXELS, stamp="",
    )  # fmt: skip
    manifest = folder / "out" / "manifest-00000.json"
    with no_hang():
        index_shards.main(made, manifest, folder / "out" / "samples-00000.parquet")
        samples = read_samples([manifest])
    ledger = dataset_books([tables.read_json(manifest)], len(samples.table))
    assert all(equation.holds for equation in ledger.equations)
    rows = samples.table.to_pylist()
    assert {row["status"] for row in rows} <= STATUSES
    assert all(row["reason"] or row["status"] == tars.OK for row in rows)
    assert Counter(row["sample_index"] for row in rows) == Counter(range(len(rows)))
    for row in rows:
        if row["status"] == tars.OK:
            image = read_range(str(path), row["offset"], row["size_bytes"])
            assert tars.content_hash(image) == row["content_hash"]
    SEEN.update(row["status"] for row in rows)
    below = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert below == {"in/a.tar", "out/manifest-00000.json", "out/samples-00000.parquet"}


def test_the_tars_were_not_all_of_one_kind() -> None:
    assert SEEN.keys() >= STATUSES
    assert SEEN[tars.OK] > CASES / 8
