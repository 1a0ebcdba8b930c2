"""The index of a set of shards: every image and its captions at random access, no copy.

    shards = expand_shards("data/{00000..00331}.tar", storage=storage)      # shards.py
    update = update_index(shards, format, directory, storage=storage)       # update.py
    index = Index.open(directory, storage=storage)                          # index.py
    index.check(shards=shards, format=format)
    source = IndexedSource(index, format, storage=storage)                  # sources/indexed.py

`is_index(directory)` in layout.py tells whether one is there. An index counts in images; an
`IndexedSource` says what example ids, `numberings` and `holes` are in its caption mode.
"""
