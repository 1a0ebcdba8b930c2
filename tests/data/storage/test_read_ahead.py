import numpy as np


def test_a_scan_of_headers_takes_few_requests(store, data):
    content = data(20_000_000)
    file = store.storage().open(store.put("b/a.tar", content))
    offsets = range(0, len(content), 30_720)  # a header every 30 kB
    assert all(file.read(o, 512) == content[o : o + 512] for o in offsets)
    assert len(store.fetched()) <= 12 < len(offsets) / 50
    assert max(stop - start for start, stop in store.fetched()) <= (4 << 20) + 512


def test_reads_at_random_fetch_little_more_than_they_use(store, data):
    content = data(30_000_000)
    file = store.storage().open(store.put("b/a.tar", content))
    file.read(0, 512)
    store.forget()
    images = np.random.default_rng(1).permutation(range(0, 29_000_000, 101_000))[:100]
    for image in images.tolist():
        assert file.read(image, 100_000) == content[image : image + 100_000]
        caption = image + 100_352  # its caption lies behind it
        assert file.read(caption, 60) == content[caption : caption + 60]
    fetched = sum(stop - start for start, stop in store.fetched())
    assert len(store.fetched()) <= 100 and fetched < 100 * 300_000


def test_what_is_kept_is_bounded(store, data):
    file = store.storage().open(store.put("b/a.tar", data(30_000_000)))
    for offset in range(0, 30_000_000, 1_000_000):
        file.read(offset, 1_000_000)
    assert sum(len(piece) for _, piece in file._pieces) <= 4 * (5 << 20)
    file.close()
    assert not file._pieces
