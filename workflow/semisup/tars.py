"""WebDataset tars: what samples they hold and where, and tars with deterministic bytes."""

import contextlib
import errno
import hashlib
import os
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import xxhash

from semisup.tables import atomic_path

IMAGE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "png", "webp", "bmp", "gif", "ppm", "pgm", "tif", "tiff"}
)

OK = "ok"
MISSING_IMAGE = "missing_image"
TRUNCATED_TAR = "truncated_tar"
BAD_LABEL = "bad_label"
READ_ERROR = "read_error"
TOO_LARGE = "too_large"

MAX_BYTES = 1 << 30
"""Largest image read, in bytes: more than its largest pixels take, less than would fill a memory."""

MAX_HEADER = 1 << 20
"""Largest name or PAX header read, in bytes."""

MAX_ZEROS = tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE
"""Zero bytes at the end of a tar that mark it and fill its last record; more were to be samples."""


class Sample(NamedTuple):
    """One sample of a tar: consecutive members with one key, or what broke."""

    key: str
    extension: str
    offset: int
    size_bytes: int
    content_hash: bytes
    label: int | None
    status: str
    reason: str


class Shard(NamedTuple):
    """A tar as read: its samples in order and the hash of the whole file."""

    samples: list[Sample]
    size_bytes: int
    sha256: str


class _Member(NamedTuple):
    key: str
    extension: str
    offset: int
    size_bytes: int
    complete: bool


def read_shard(path: Path, num_classes: int | None) -> Shard:
    """Index the tar at ``path``; the image of a sample is its first member with an image suffix.

    With ``num_classes`` the label is read from the ``.cls`` member and must be below it; with None
    no label is read. A truncated tar keeps its whole samples; what it was cut in is a sample with
    status ``truncated_tar``, and so are zeros where samples should be, as a download that had its
    size before its bytes leaves them. Raises OSError when the file cannot be read.
    """
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size_bytes = file.tell()
        members, broken = _list_members(file, size_bytes)
        samples = [_read_sample(file, group, num_classes) for group in _group(members)]
    if broken:
        samples.append(Sample("", "", -1, 0, content_hash(b""), None, TRUNCATED_TAR, broken))
    return Shard(samples, size_bytes, sha256)


class _Bounded:
    """A file that is asked for no more than it has, and than a header may take: headers claim
    terabytes, and tarfile believes."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self.seek, self.tell = file.seek, file.tell
        self._file, self._size_bytes = file, size_bytes

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, MAX_HEADER, max(self._size_bytes - self.tell(), 0)))


def _list_members(file: BinaryIO, size_bytes: int) -> tuple[list[_Member], str]:
    """The members with a suffix, and why the tar broke off before its end, if it did."""
    file.seek(0)
    members: list[_Member] = []
    bounded: Any = _Bounded(file, size_bytes)
    try:
        with tarfile.open(fileobj=bounded, mode="r:", errors="surrogateescape") as tar:
            for info in tar:
                if info.size < 0:
                    return members, f"the header at byte {info.offset:,} has a negative size"
                if info.isdir():
                    continue
                key, extension = _split_name(info.name)
                plain = info.isfile() and not info.issparse()
                size = info.size if plain else 0  # a link has no bytes of its own
                end = info.offset_data + size
                if extension:
                    extension += "" if plain else " (not a plain file)"
                    complete = end <= size_bytes
                    members.append(_Member(key, extension, info.offset_data, size, complete))
                if end > size_bytes:
                    return members, ""
            return members, _check_end(file, int(tar.offset))
    except Exception as error:  # tarfile raises anything on crafted headers
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # an offset they made up
            raise
        return members, f"tar cannot be read further: {error or type(error).__name__}"


def _check_end(file: BinaryIO, offset: int) -> str:
    """Why what stands where tarfile stopped is no end of a tar: it stops silently at bad headers."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        return f"the tar has no end marker at byte {offset:,}: it was cut or never closed"
    if block.count(0) < tarfile.BLOCKSIZE:
        return f"the header at byte {offset:,} is damaged or cut"
    while chunk := file.read(1 << 20):
        if chunk.count(0) < len(chunk):
            return f"the tar ends at byte {offset:,} but more follows: joined tars, or damage"
    if (zeros := file.tell() - offset) > MAX_ZEROS:
        return f"nothing but {zeros:,} zeros from byte {offset:,}: never written, or lost"
    return ""


def _split_name(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key is the path up to the first dot of the last component."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    match = re.fullmatch(r"((?:.*/)?[^/.]+)\.([^/]*)", name, flags=re.DOTALL)
    return (match[1], match[2].lower()) if match else (name, "")


def _group(members: list[_Member]) -> Iterator[list[_Member]]:
    group: list[_Member] = []
    for member in members:
        # A new key, or an extension seen before, begins a new sample.
        if group and (
            member.key != group[0].key or member.extension in {m.extension for m in group}
        ):
            yield group
            group = []
        group.append(member)
    if group:
        yield group


def _read_sample(file: BinaryIO, group: list[_Member], num_classes: int | None) -> Sample:
    key = group[0].key
    image = next((m for m in group if m.extension in IMAGE_EXTENSIONS), None)

    def sample(label: int | None, status: str, reason: str, content: bytes = b"") -> Sample:
        extension, offset, size = image[1:4] if image else ("", -1, 0)
        return Sample(key, extension, offset, size, content_hash(content), label, status, reason)

    if not all(member.complete for member in group):
        return sample(None, TRUNCATED_TAR, "the tar ends inside this sample")
    label, problem = None, ""
    if num_classes is not None:
        label, problem = _read_label(file, group, num_classes)
    if image is None:
        found = ", ".join(member.extension for member in group)
        return sample(label, MISSING_IMAGE, f"no member with an image suffix, only: {found}")
    if image.size_bytes > MAX_BYTES:
        return sample(label, TOO_LARGE, f"{image.size_bytes:,} bytes are more than {MAX_BYTES:,}")
    file.seek(image.offset)
    content = file.read(image.size_bytes)
    return sample(label, BAD_LABEL if problem else OK, problem, content)


def _read_label(file: BinaryIO, group: list[_Member], num_classes: int) -> tuple[int | None, str]:
    member = next((m for m in group if m.extension == "cls"), None)
    if member is None:
        return None, "no .cls member"
    file.seek(member.offset)
    text = file.read(min(member.size_bytes, 100)).decode("ascii", "replace").strip()
    if not re.fullmatch(r"-?\d{1,9}", text):
        return None, f".cls is {text[:20]!r}, not an integer"
    if not -1 <= int(text) < num_classes:
        return None, f".cls is {text}, not below the {num_classes} classes"
    if int(text) == -1:
        return None, ""
    return int(text), ""


def content_hash(content: bytes) -> bytes:
    """128 bits that tell images apart: XXH3, as fast as memory, where SHA-256 would be half of packing."""
    return xxhash.xxh3_128_digest(content)


class Writer:
    """A tar whose bytes depend on the names and contents alone; a context, atomic as a whole.

    Python's tarfile makes the same bytes in several times the time, as it computes every header
    anew; and image bytes are handed to the kernel from where they are, never copied together.
    ``sha256`` is that of the finished file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = ""
        self._atomic = atomic_path(path)
        self._digest = hashlib.sha256()
        self._offset = 0
        self._unwritten: list[bytes] = []
        self._written = 0

    def __enter__(self) -> "Writer":
        self._file = open(self._atomic.__enter__(), "wb", buffering=0)
        return self

    def add(self, key: str, members: dict[str, bytes]) -> int:
        """Append a sample, its members by extension; returns the offset of the first's content."""
        starts = []
        for extension, content in members.items():
            self._append(member_header(f"{key}.{extension}", len(content)))
            starts.append(self._offset)
            self._append(content)
            self._append(PADDING[: -len(content) % tarfile.BLOCKSIZE])
        return starts[0]

    def _append(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._unwritten.append(piece)
        self._offset += len(piece)
        if self._offset - self._written >= AT_ONCE or len(self._unwritten) == MOST_PIECES:
            self._flush()

    def _flush(self) -> None:
        """Write what there is, and let the disk begin: at the end it would be waited for."""
        start, length = self._written, self._offset - self._written
        done = os.writev(self._file.fileno(), self._unwritten)
        if done < length:  # a full disk, which says so only the next time
            rest = memoryview(b"".join(self._unwritten))[done:]
            while rest:
                rest = rest[self._file.write(rest) :]
        self._unwritten.clear()
        self._written = self._offset
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # Linux then writes what need not stay in memory
                os.posix_fadvise(self._file.fileno(), start, length, os.POSIX_FADV_DONTNEED)

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                end = 2 * tarfile.BLOCKSIZE
                self._append(bytes(end + -(self._offset + end) % tarfile.RECORDSIZE))
                self._flush()
                self.sha256 = self._digest.hexdigest()
            self._file.close()
        except OSError:  # a full disk
            self._file.close()
            self._atomic.__exit__(*sys.exc_info())
            raise
        self._atomic.__exit__(*error)


PADDING = bytes(tarfile.BLOCKSIZE)
AT_ONCE = 1 << 20
"""Bytes that are written together."""
MOST_PIECES = 1000
"""One call of the kernel takes 1,024."""


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.PAX_FORMAT)


BLANK = bytearray(_header("", 0))
BLANK[148:156] = b" " * 8  # as if it were blank, the checksum is counted in itself
NO_NAME, OWNER, TIME, REST = BLANK[:100], BLANK[100:124], BLANK[135:148], BLANK[156:]
REST_SUM = sum(BLANK) - sum(BLANK[124:135])


def member_header(name: str, size: int) -> bytes:
    """The header of a file: mode 444, no owner, time 0."""
    if len(name) > 100 or size >= 8**11 or not name.isascii():
        return _header(name, size)
    encoded, digits = name.encode(), b"%011o" % size
    checksum = b"%06o\0 " % (REST_SUM + sum(encoded) + sum(digits))
    return b"".join((encoded, NO_NAME[len(encoded) :], OWNER, digits, TIME, checksum, REST))


def write_tar(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> None:
    """Write samples, each a key and its members' contents by extension; all of them or no file."""
    with Writer(path) as tar:
        for key, members in samples:
            tar.add(key, members)
