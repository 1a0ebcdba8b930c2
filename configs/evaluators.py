"""What to measure a model on: the specs of every kind of evaluator, for `c.evaluators.KIND.SET`.

    from configs import base, evaluators
    c.evaluators.retrieval.coco = evaluators.retrieval("tar", base.tar_source())

Results are named KIND/SET/METRIC.
"""

from ml_collections import ConfigDict

KINDS = (
    "zero_shot",
    "retrieval",
    "linear_probe",
    "few_shot",
    "knn",
    "clustering",
    "geometry",
    "caption",
    "pair_choice",
    "judgement",
)


def _with(block: ConfigDict, fields: dict) -> ConfigDict:
    """The block with some fields of other values."""
    if unknown := sorted(set(fields) - set(block)):
        raise ValueError(f"no such field: {unknown[0]}; choose of {', '.join(block)}")
    with block.ignore_type():  # a text may become several
        block.update(fields)
    return block


def labelled_set(source: str, block: ConfigDict, **fields: str | tuple[str, ...]) -> ConfigDict:
    """Images with one class each, and how prompts name the classes."""
    c = ConfigDict()
    c.source = source  # class_scenes | zip | image_folder | webdataset | tfds: where they lie
    c[source] = block
    # Class names and templates: a file in nlip_jax/evaluators/prompts, such as "cifar10", or the
    # path of such a .json; empty: those of the set itself.
    c.prompts = ""
    # auto: those of prompts, or of the set | clip: OpenAI's, of prompts | filip: FILIP's, of
    # prompts | own: those of the set | a text with {} for the name of the class, or several
    c.templates = "auto"
    # names: folders or labels meet class names of the same letters and digits | order: one by one,
    # folders being sorted
    c.match = "names"
    return _with(c, fields)


def zip_set(**fields: str) -> ConfigDict:
    """ZIP files of CLASS/IMAGE.jpg, for `labelled_set("zip", ...)`."""
    c = ConfigDict()
    c.path = ""  # of the file; several: with :: between, or with wildcards
    # JSON with "folders" and "classnames" | auto: classnames.json beside the file, where there is
    # one | none: the names of the folders
    c.class_names = "auto"
    c.index = ""  # folder of the index; empty: WORKDIR/index/NAME, made on first use
    return _with(c, fields)


def image_folder_set(**fields: str) -> ConfigDict:
    """Folders CLASS of images on a local disk, for `labelled_set("image_folder", ...)`."""
    c = ConfigDict()
    c.root = ""  # holds the folders
    # JSON with "folders" and "classnames" | auto: classnames.json in root, where there is one |
    # none: the names of the folders
    c.class_names = "auto"
    c.index = ""  # folder of the index; empty: WORKDIR/index/NAME, made on first use
    return _with(c, fields)


def webdataset_set(**fields: str) -> ConfigDict:
    """Tars as CLIP_benchmark writes them, for `labelled_set("webdataset", ...)`."""
    c = ConfigDict()
    c.root = ""  # holds classnames.txt and the folders of splits
    c.split = "test"  # folder with nshards.txt, 0.tar, 1.tar ...
    c.index = ""  # folder of the index; empty: WORKDIR/index/NAME, made on first use
    return _with(c, fields)


def tfds_set(**fields: str) -> ConfigDict:
    """What TensorFlow Datasets prepared as ArrayRecord, for `labelled_set("tfds", ...)`."""
    c = ConfigDict()
    c.name = ""  # such as "cifar10" or "cars196:2.1.0"
    c.split = "test"  # such as "test" or "train[80%:]"
    c.data_dir = ""  # empty: TFDS's own default
    c.image_key = "image"  # of the examples
    c.label_key = "label"  # of the examples: one integer
    return _with(c, fields)


def class_scenes() -> ConfigDict:
    """Procedural scenes of one object each: labelled images without files."""
    c = ConfigDict()
    c.images_per_class = 10
    c.split = "validation"
    c.seed = 0
    c.image_size = 32  # pixels
    return c


def zero_shot(source: str, block: ConfigDict, **fields: str | tuple[str, ...]) -> ConfigDict:
    """Zero-shot classification of a labelled set, for `evaluators.zero_shot`."""
    c = labelled_set(source, block)
    # embeddings: the mean of a class's embeddings (CLIP) | similarities: the mean of its
    # similarities (FILIP) | none: the first template alone
    c.ensemble = "embeddings"
    # The headline: top1 | top5 | mean_per_class | auto: as the papers report the set
    c.metric = "auto"
    return _with(c, fields)


def retrieval(source: str, spec: ConfigDict) -> ConfigDict:
    """A captioned set to retrieve from, for `evaluators.retrieval`."""
    c = ConfigDict()
    c.source = source  # where images and captions come from: tar | folder | lines | ...
    c[source] = spec
    # Captions of the same images in several languages, as ("en", "de"): each stands where the texts
    # of the source's block have {language}; (): one language
    c.languages = ()
    c.image_to_text = ConfigDict()
    c.image_to_text.prefix = ""  # in front of the captions that images look for
    c.image_to_text.suffix = ""  # behind them
    c.text_to_image = ConfigDict()
    c.text_to_image.prefix = ""  # in front of the captions that look for images
    c.text_to_image.suffix = ""  # behind them
    c.examples = 6  # queries of each way on the page of results
    return c


def geometry(source: str, spec: ConfigDict) -> ConfigDict:
    """A captioned set whose embeddings are looked at, for `evaluators.geometry`."""
    c = ConfigDict()
    c.source = source  # where images and captions come from: tar | folder | lines | ...
    c[source] = spec
    return c


def caption(source: str, spec: ConfigDict, predictions: str = "") -> ConfigDict:
    """A captioned set to describe, for `evaluators.caption`."""
    c = ConfigDict()
    c.source = source  # where images and the captions of people come from: tar | folder | ...
    c[source] = spec
    # File of captions to measure, [{"image_id": .., "caption": ..}]; empty: the model makes them
    c.predictions = predictions
    # What a number as image_id there means. file_name: the number that the image's file name, or
    # its key, ends in, as COCO's do | place: the image's place in the set, from 0
    c.image_ids = "file_name"
    # The first is the headline, of bleu bleu4: cider | bleu | rouge_l | meteor | spice; the last
    # two need Java
    c.metrics = ("cider", "bleu", "rouge_l")
    c.prompt = ""  # that the model's captions begin with, and that is not measured
    c.examples = 8  # images on the page of results
    return c


def judgement(captions: str = "", **ratings: str) -> ConfigDict:
    """Judgements of likeness as Crisscrossed Captions has them, for `evaluators.judgement`.

    judgement("dataset_coco.json", sts="sts_test.csv", sis="sis_test.csv", sits="sits_test.csv")
    """
    c = ConfigDict()
    c.captions = captions  # Karpathy's JSON, with the ids of captions
    c.root = ""  # folder of its images; empty: that of the file
    c.splits = ("test",)  # images of these; empty: all
    c.ratings = ConfigDict(ratings)  # name -> CSV file of two items and a rating
    c.retrieval = True  # also retrieve, with what is rated alike as right answers
    c.rounds = 1000  # of the bootstrap
    c.seed = 0  # of the bootstrap
    return c


def pair_choice(files: str = "") -> ConfigDict:
    """Which caption belongs to which image (Winoground, ...), for `evaluators.pair_choice`."""
    c = ConfigDict()
    c.files = files  # JSON or JSON lines, with wildcards; several: with :: between
    c.root = ""  # folder of the images; empty: that of each file
    c.extension = ""  # of the images, where their names lack it: "png" for Winoground
    c.examples = 6  # records on the page of results
    return c


def linear_probe(train: ConfigDict, test: ConfigDict, **fields: str) -> ConfigDict:
    """A linear classifier on the features of images, for `evaluators.linear_probe`."""
    c = ConfigDict()
    c.train = train  # a labelled_set: what it learns from
    c.test = test  # a labelled_set of the same classes: what it is measured on
    # embed: the embedding that is trained, of length 1 | pooled: the image tower's output before
    # its projection, as it is (CLIP, ProtoCLIP)
    c.features = "embed"
    c.protocol = "lbfgs"  # lbfgs: logistic regression (CLIP) | sgd: as ProtoCLIP trains it
    c.lbfgs = ConfigDict()
    # scikit-learn's 1/C: of the squared weights against the sum of cross-entropies; 0: CLIP's sweep
    # from 1e-6 to 1e6 on a part of train, then once more on all of it
    c.lbfgs.regularisation = 0.0
    c.lbfgs.validation_share = 0.2  # of every class of train, for the sweep
    c.lbfgs.seed = 0  # of that split
    c.lbfgs.tolerance = 1e-7  # stop when so little of the objective is left to gain, as a share
    c.lbfgs.max_iterations = 1000  # of every fit
    c.sgd = ConfigDict()
    c.sgd.learning_rate = 0.1  # of the first epoch; a cosine over the epochs
    c.sgd.momentum = 0.9  # share of the last step that the next one keeps
    c.sgd.weight_decay = 1e-6  # of weights and bias, as part of the gradient
    c.sgd.batch_size = 1024  # images of a step
    c.sgd.epochs = 100  # passes over train
    c.sgd.seed = 0  # of the first weights and the order of images
    return _with(c, fields)


def few_shot(train: ConfigDict, test: ConfigDict, **fields: object) -> ConfigDict:
    """Linear probes on a few images a class, for `evaluators.few_shot`."""
    c = ConfigDict()
    c.train = train  # a labelled_set: where the images are drawn from
    c.test = test  # a labelled_set of the same classes: what is measured
    c.features = "embed"  # embed | pooled; see linear_probe
    c.num_shots = (1, 2, 4, 8, 16)  # images a class
    c.num_seeds = 3  # draws for each of these
    c.seed = 0  # of the first draw
    # scikit-learn's 1/C; 0: CLIP's sweep on as many other images of train, at most 4 a class (CoOp)
    c.regularisation = 0.0
    c.tolerance = 1e-7  # stop when so little of the objective is left to gain, as a share
    c.max_iterations = 1000  # of every fit
    return _with(c, fields)


def knn(train: ConfigDict, test: ConfigDict, **fields: object) -> ConfigDict:
    """Votes of the nearest training images, for `evaluators.knn`."""
    c = ConfigDict()
    c.train = train  # a labelled_set: the neighbours
    c.test = test  # a labelled_set of the same classes: what is measured
    c.features = "embed"  # embed | pooled; compared by cosine
    c.num_neighbours = 20  # that vote
    c.temperature = 0.07  # a vote weighs exp(cosine / temperature)
    return _with(c, fields)


def clustering(source: str, block: ConfigDict, **fields: object) -> ConfigDict:
    """k-means with as many clusters as classes, for `evaluators.clustering`."""
    c = labelled_set(source, block)
    c.features = "embed"  # embed | pooled; brought to length 1
    c.num_iterations = 100  # at most
    c.num_restarts = 5  # the lowest sum of squared distances is kept
    c.init = "random"  # random: images drawn alike (FAISS, ProtoCLIP) | k-means++
    c.seed = 0  # of the first centroids
    return _with(c, fields)
