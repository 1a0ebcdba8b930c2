"""Captions line by line with a list of images: Multi30K's layout, real texts, and what is wrong."""

import pytest
from shards import contents, left_out, scan
from tars import encode, pixels

from nlip_jax.data.formats.lines import LinesFormat
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

A, B = encode(pixels(0)), encode(pixels(1))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.jpg").write_bytes(A)
    (tmp_path / "b#1.jpg").write_bytes(B)
    return tmp_path


def lines_of(folder, names, captions, **options):
    (folder / "images.txt").write_text(names)
    (folder / "test.de.txt").write_text(captions, encoding="utf-8")
    return LinesFormat(images=str(folder / "images.txt"), **options), folder / "test.de.txt"


def test_line_i_describes_image_i(folder):
    format, path = lines_of(folder, "a.jpg\nb#1.jpg\n", "Ein Hut.\r\n Zäune\u2028 \n")
    assert contents(format, path) == [("a.jpg", A, ["Ein Hut."]), ("b#1.jpg", B, ["Zäune"])]


def test_several_captions_of_an_image(folder):
    format, path = lines_of(folder, "a.jpg#0\nb#1.jpg#0\na.jpg#1", "a1\nb1\na2")
    assert contents(format, path) == [("a.jpg", A, ["a1", "a2"]), ("b#1.jpg", B, ["b1"])]


def test_images_elsewhere(folder):
    (folder / "images").mkdir()
    (folder / "images" / "c.jpg").write_bytes(B)
    format, path = lines_of(folder, "c.jpg", "c", root=str(folder / "images"))
    assert contents(format, path) == [("c.jpg", B, ["c"])]


def test_images_without_a_caption_are_counted(folder):
    format, path = lines_of(folder, "a.jpg\nb#1.jpg\nc.jpg", "a\n\nc")
    assert left_out(scan(format, path)) == {"blank_caption": 1}
    assert [key for key, *_ in contents(format, path)] == ["a.jpg", "c.jpg"]


@pytest.mark.parametrize(
    ("names", "captions", "message"),
    [
        ("a.jpg\nb#1.jpg", "a", "test.de.txt has 1 lines, and .*images.txt names 2 images: line i"),
        ("a.jpg", "a\nb\n", "test.de.txt has 2 lines, and .*images.txt names 1 images"),
    ],
)
def test_other_numbers_of_lines(folder, names, captions, message):
    format, path = lines_of(folder, names, captions)
    with pytest.raises(UsageError, match=message):
        format.scan(str(path), Storage())


def test_lists_that_are_none(folder):
    _, path = lines_of(folder, "a.jpg", "a")
    with pytest.raises(UsageError, match=r"images='nowhere' cannot be read \(No such file"):
        LinesFormat(images="nowhere").scan(str(path), Storage())
    with pytest.raises(UsageError, match=r"lines\.images is empty"):
        LinesFormat(images="")
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"test\.de\.txt is no text in UTF-8"):
        LinesFormat(images=str(folder / "images.txt")).scan(str(path), Storage())


def test_a_list_that_changed_is_noticed(folder):
    format, path = lines_of(folder, "a.jpg\nb#1.jpg", "a\nb")
    rows = scan(format, path).rows
    (folder / "images.txt").write_text("b#1.jpg\na.jpg")
    opened = format.open(str(path), Storage())
    for read in (opened.image, opened.captions):
        with pytest.raises(Exception, match=r"'b#1\.jpg' is not what .*images\.txt named there"):
            read(rows[0])


def test_multi30k(shared, tmp_path):
    """The texts as they are given out; the pictures are not there."""
    (tmp_path / "images.txt").write_text("".join(f"{i}.jpg\n" for i in range(1000)))
    format = LinesFormat(images=str(tmp_path / "images.txt"))
    for language, first in (("en", "A man in an orange hat"), ("cs", "Muž v oranžovém klobouku")):
        path = shared / "data" / "multi30k_text" / f"test_2016_flickr.{language}.txt"
        found = contents(format, path)
        assert len(found) == 1000
        assert found[0][0] == "0.jpg"
        assert found[0][2][0].startswith(first)
