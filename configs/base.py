"""Every field of a run, with its default. Experiments start from `get_config()` and change a few.

A duration is text: "2000 steps", "30 epochs", "1e9 examples" or "10 %" (of `total`).
`python -m nlip_jax train --help` prints this page.
"""

from ml_collections import ConfigDict

from configs.evaluators import KINDS

# Fields that may differ when a run goes on in the same workdir: they change how the work is done,
# not what is computed. `total` may grow too where the schedule does not depend on it.
RUNTIME = (
    "mesh.*",
    "loss.impl",
    "loss.tile",
    "accumulation.*",
    "model.remat",
    "spikes.max_skipped",
    "compilation_cache",
    "ema.evaluate",
    "data.storage.*",
    "data.max_bad_fraction",
    "data.workers",
    "data.threads",
    "data.prefetch",
    "checkpoint.*",
    "log.*",
    "evaluation.*",
    "evaluators.*",
    "captions.evaluation",
    "report.*",
    "runtime",
)


def synthetic_source() -> ConfigDict:
    """Procedural scenes: a data set without files, with planted noise whose truth is known."""
    c = ConfigDict()
    c.num_examples = 20_000  # one scene with one caption each
    c.split = "train"  # another split has other scenes
    c.seed = 0
    c.image_size = 32  # pixels; the scenes are drawn at this size
    c.mismatched = 0.0  # share of captions that describe another scene
    c.incomplete = 0.0  # share of captions that leave objects or attributes out
    c.irrelevant = 0.0  # share of captions that are file names, dates, shop talk
    # False: a caption has one of these faults at most | True: any, each drawn on its own
    c.independent = False
    return c


def indexed_source() -> ConfigDict:
    """What every source has whose files are scanned once, into an index."""
    c = ConfigDict()
    c.shards = ""  # "data/train/*.tar", "gs://bucket/{00000..00331}.tar"; several: with :: between
    c.captions = "expand"  # expand: each caption makes an example | sample: one drawn each epoch
    c.caption_probabilities = ()  # with sample: chance of each caption key; (): first that has one
    c.index = ""  # folder of the index; empty: WORKDIR/index/NAME, made on first use
    c.num_images = 0  # only the first so many images; 0: all
    return c


def tar_source() -> ConfigDict:
    """Tar shards as img2dataset and WebDataset write them, read in place."""
    c = indexed_source()
    c.caption_key = "txt"  # "txt" or "json:FIELD" (a text or a list); "json:a,txt": the first there
    return c


def array_record_source() -> ConfigDict:
    """ArrayRecord files, as `prepare` or TFDS write them."""
    c = indexed_source()
    c.image_key = "image"  # of the record
    c.caption_key = "captions,caption"  # of the record; the first that gives a caption
    c.sample_key = "key"  # of the record: names the sample in messages
    return c


def parquet_source() -> ConfigDict:
    """Parquet files with image bytes or paths, as Hugging Face datasets write them."""
    c = indexed_source()
    c.image_column = "image"
    c.caption_column = "caption"  # several by comma: the first that gives a caption
    c.root = ""  # where relative paths start; empty: the folder of the file
    return c


def table_source() -> ConfigDict:
    """CSV or TSV files of image path and caption, as open_clip reads them."""
    c = indexed_source()
    c.image_column = "filepath"
    c.caption_column = "title"  # several by comma: the first that gives a caption
    c.separator = "\t"
    c.root = ""  # where relative paths start; empty: the folder of the file
    return c


def folder_source() -> ConfigDict:
    """Images beside a file of captions; `shards` names that file (COCO's JSON, a list, a text)."""
    c = indexed_source()
    c.root = ""  # folder of the images; empty: that of the file
    c.splits = ()  # only images whose record has one of these as "split"; empty: all
    c.language = ""  # captions under this name of a record, as in Crossmodal-3600; empty: the one
    return c


def lines_source() -> ConfigDict:
    """Texts with a caption a line; the images are on the lines of a list, as Multi30K has them."""
    c = indexed_source()
    c.images = ""  # that list: line i names the image of caption i
    c.root = ""  # folder of the images; empty: that of the list
    return c


def labelled_source() -> ConfigDict:
    """Zips of CLASS/IMAGE.jpg; the caption is a template with the name of the class."""
    c = indexed_source()
    c.template = "a photo of a {}."
    c.class_names = ""  # JSON with parallel lists "folders" and "classnames"; empty: folder names
    return c


def labelled_folder_source() -> ConfigDict:
    """Folders CLASS/IMAGE.jpg; `shards` names a JSON beside them: "folders" and "classnames"."""
    c = indexed_source()
    c.template = "a photo of a {}."
    return c


def tfds_source() -> ConfigDict:
    """A data set that TensorFlow Datasets has prepared as ArrayRecord."""
    c = ConfigDict()
    c.name = ""  # such as "coco_captions" or "coco_captions/2014:1.1.0"
    c.split = "train"
    c.data_dir = ""  # empty: TFDS's own default
    c.image_key = "image"  # of the examples
    c.caption_key = "caption"  # of the examples; "captions/text" leads into nested features
    c.captions = "expand"  # expand: each caption makes an example | sample: one drawn each epoch
    return c


def mixture_part(source: str, spec: ConfigDict, *, weight: float) -> ConfigDict:
    """A part of `data.mixture`: any source, and its share of the examples drawn."""
    return ConfigDict({"source": source, source: spec, "weight": weight})


def get_config(arg: str | None = None) -> ConfigDict:
    """The defaults of every field."""
    if arg:
        raise ValueError(f"configs/base.py takes no argument, got {arg!r}")
    c = ConfigDict()
    c.seed = 0  # of parameters, order, augmentation, planting
    # clip | siglip | filip | align (its loss) | nlip, or "package.module:function" of your own
    c.method = "nlip"
    c.total = "20 epochs"  # length of the run
    c.batch_size = 256  # global: every loss sees all of it

    # --- data -----------------------------------------------------------------------------------
    c.data = ConfigDict()
    # synthetic | tar | array_record | parquet | table | folder | lines | labelled |
    # labelled_folder | tfds | mixture
    c.data.source = "synthetic"  # which of the blocks below is read
    c.data.synthetic = synthetic_source()
    c.data.tar = tar_source()
    c.data.array_record = array_record_source()
    c.data.parquet = parquet_source()
    c.data.table = table_source()
    c.data.folder = folder_source()
    c.data.lines = lines_source()
    c.data.labelled = labelled_source()
    c.data.labelled_folder = labelled_folder_source()
    c.data.tfds = tfds_source()
    c.data.mixture = ConfigDict()  # name -> mixture_part(...); drawn by weight
    c.data.plant_mismatch = 0.0  # share of examples whose captions are permuted, to measure noise
    c.data.keep_column = ""  # folder of a column version, such as runs/a/columns/noise_prob/0001
    # Train on examples whose value there is in [low, high), and on those that were added since.
    c.data.keep_range = (0.0, 0.5)
    c.data.replacement = False  # True: draw every example from all, instead of epoch by epoch
    c.data.max_bad_fraction = 0.05  # the run stops when more of 10,000 examples cannot be read
    c.data.max_pixels = 64_000_000  # larger images are not decoded, and count as bad
    c.data.image_size = 32  # pixels of the square the image tower sees
    c.data.resize = "center_crop"  # center_crop | squash: how an image becomes that square
    c.data.crop_scale = (1.0, 1.0)  # share of the area a random crop keeps; (1, 1): no crop
    c.data.crop_ratio = (0.75, 1.3333333)  # width / height of a random crop
    c.data.flip = False  # mirror half of the images in training; wrong where captions say left
    c.data.mask_rate = 0.15  # share of tokens to guess, for methods with masked language modelling
    c.data.mask_whole_words = False  # mask words rather than tokens
    c.data.cache = "none"  # none | memory: keep decoded images in the trainer's memory
    c.data.cache_bytes = 4_000_000_000  # bound of their pixels in each process
    c.data.workers = 0  # Grain worker processes on each host; 0: threads of the trainer
    c.data.threads = 2  # threads that make batches, in the trainer or in each worker
    c.data.prefetch = 4  # batches made ahead

    c.data.augment = ConfigDict()  # in training, after the crop
    c.data.augment.color_jitter = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue
    c.data.augment.color_jitter_prob = 0.8
    c.data.augment.grayscale_prob = 0.0
    c.data.augment.blur_prob = 0.0  # Gaussian
    c.data.augment.blur_sigma = (0.1, 2.0)  # pixels
    c.data.augment.policy = "none"  # none | randaugment | randaugment_albef | autoaugment
    c.data.augment.randaugment_ops = 2  # operations an image
    c.data.augment.randaugment_magnitude = 5  # 0 to 10

    c.data.storage = ConfigDict()  # files at gs://, s3://, https:// ...
    c.data.storage.cache_dir = ""  # local folder for blocks that were read; empty: no cache
    # Examples are read in shuffled order and blocks are 4 MiB: unless the data set fits into the
    # cache, whole blocks are fetched for the sake of one example.
    c.data.storage.cache_bytes = 0  # bound of that folder; 0: none
    c.data.storage.attempts = 5  # readings of a block before it counts as unreadable

    c.tokenizer = ConfigDict()
    c.tokenizer.name = "sentencepiece"  # sentencepiece | clip | bert | bart: kind of vocabulary
    c.tokenizer.model = ""  # file or folder of the vocabulary; empty: trained (sentencepiece)
    c.tokenizer.vocab_size = 8000  # of a trained one; shrinks to what the captions support
    c.tokenizer.max_sentences = 1_000_000  # captions it is trained on
    c.tokenizer.lower_case = True  # bert: an uncased vocabulary; False: a cased one
    c.tokenizer.context_length = 32  # tokens with [bos] and [eos]; longer captions are cut

    # --- model ----------------------------------------------------------------------------------
    c.model = ConfigDict()
    c.model.embed_dim = 256  # of both embeddings
    c.model.init_temperature = 0.0  # 1 / logit scale at the start; 0: the method's own
    c.model.max_logit_scale = 0.0  # clamp of the learned logit scale; 0: the method's own
    c.model.dtype = "float32"  # float32 | bfloat16: matrix products; parameters stay float32
    c.model.remat = "none"  # none | dots | full: recompute activations in the backward pass
    c.model.dropout = 0.0  # share of each layer's two updates that is left out in training
    c.model.scan = True  # one compiled layer looped over, instead of all layers unrolled

    c.model.image = ConfigDict()
    c.model.image.patch_size = 16
    c.model.image.width = 384
    c.model.image.depth = 12
    c.model.image.heads = 6
    c.model.image.mlp_dim = 0  # inside the MLPs; 0: 4 * width
    c.model.image.pool = "cls"  # cls | mean | map (attention pooling)
    c.model.image.position = "learned"  # learned | sincos2d

    c.model.text = ConfigDict()
    c.model.text.width = 384
    c.model.text.depth = 12
    c.model.text.heads = 6
    c.model.text.mlp_dim = 0
    c.model.text.pool = "eos"  # eos | cls | mean
    c.model.text.causal = True  # False: every token sees every other

    c.model.decoder = ConfigDict()  # nlip.model=four_part: of captions; as wide as the text tower
    c.model.decoder.depth = 6
    c.model.decoder.heads = 6
    c.model.decoder.mlp_dim = 0

    c.model.image_decoder = ConfigDict()  # nlip.model=four_part: of masked images
    c.model.image_decoder.width = 256
    c.model.image_decoder.depth = 4
    c.model.image_decoder.heads = 8
    c.model.image_decoder.mlp_dim = 0

    # --- loss and methods -----------------------------------------------------------------------
    c.loss = ConfigDict()
    # dot | token_max (FILIP's token-wise maximum) | auto: the method's own
    c.loss.similarity = "auto"
    # dense: the whole matrix of logits | rows: each device its rows of it | tiled: a tile at a
    # time | ring: so too, and no device ever holds the texts of all | auto: by size
    c.loss.impl = "auto"
    c.loss.tile = 0  # rows and columns of a tile; 0: by similarity and kind of device
    c.loss.dtype = "float32"  # float32 | bfloat16: of the features that are multiplied
    # What the same image or caption, twice in a batch, is to the other pair:
    # negatives | ignored | positives
    c.loss.duplicates = "negatives"
    c.loss.token_keep = 1.0  # token_max: share of the tokens that take part (FILIP: 0.25)
    c.loss.token_group = 64  # token_max: pairs of the batch whose tokens compete for that

    c.siglip = ConfigDict()  # read where the normaliser is a sigmoid
    c.siglip.init_bias = -10.0  # of the logits, at the start

    c.align = ConfigDict()  # read by method=align only
    c.align.label_smoothing = 0.1  # share of a target that goes to all texts of the batch alike

    c.nlip = ConfigDict()  # read by method=nlip only
    # dual_encoder: the plain towers | four_part: NLIP's own, which also captions and reconstructs
    c.nlip.model = "dual_encoder"
    # four_part: folder of a BART from Hugging Face, as whose parts text encoder and decoder begin
    # and are arranged; read once, at the start. Sizes and tokenizer must be its own. Empty: none
    c.nlip.bart = ""
    c.nlip.warmup = "5 epochs"  # plain InfoNCE before the first estimate
    c.nlip.reestimate_every = "0 epochs"  # estimate again with this period; 0: once
    # pass: a pass over all pairs, without augmentation | online: the losses that training saw
    c.nlip.estimate = "pass"
    # online: the losses of so long a time before the estimate; two epochs see every pair
    c.nlip.online_window = "2 epochs"
    c.nlip.weight = 0.5  # lambda: a pair's target gives lambda * noise_prob to the others
    c.nlip.form = "smoothed_targets"  # smoothed_targets | mixture_likelihood
    c.nlip.normaliser = "softmax"  # softmax | sigmoid
    c.nlip.clip_percentiles = (0.1, 99.9)  # losses are clipped there before the fit
    c.nlip.num_bins = 16_384  # of the histogram the mixture is fitted to
    c.nlip.max_iterations = 200  # of expectation maximisation
    c.nlip.tolerance = 1e-6  # change of the mean log-likelihood that ends it
    c.nlip.reg_covar = 5e-4  # added to the variances, in units of the normalised loss
    c.nlip.num_shown = 24  # most and least noisy pairs in report.html
    c.nlip.itc_weight = 1.0  # of the contrastive loss
    c.nlip.lm_weight = 1.0  # four_part: of the captioning loss; 0: there is none
    c.nlip.ir_weight = 1.0  # four_part: of masked-image reconstruction; 0: there is none
    # four_part: how far noise counts in the captioning loss: a pair has 1 - this * noise_prob there
    c.nlip.lm_noise_weight = 0.0
    c.nlip.lm_label_smoothing = 0.1  # of the captions' words
    c.nlip.lm_stride = 1  # every so many-th pair of a batch goes through the captioning loss
    c.nlip.mask_ratio = 0.5  # four_part: share of the patches that training hides
    c.nlip.text_drop = 0.5  # share of captions that the captioner is not shown at all in training
    c.nlip.text_mask_rate = (0.3, 0.5)  # share of the words of the others that are masked
    c.nlip.text_mask_span = 3.0  # words in a row behind one mask, in the mean
    c.nlip.concepts_in_itc = False  # let concepts, which tell of the image, into the text feature

    # Noise completion: texts of the model's own in place of noisy ones.
    c.nlip.completion = ConfigDict()
    # Which text a pair shows: none: its own | noise_prob: the synthetic one with that probability |
    # threshold: where noise_prob exceeds it | union: both, one after the other | auto: noise_prob
    # where the model makes captions, else none
    c.nlip.completion.text = "auto"
    c.nlip.completion.threshold = 0.5
    c.nlip.completion.after = "0 epochs"  # from the first estimate to the first captions
    c.nlip.completion.every = "0 epochs"  # new concepts and captions with this period; 0: once
    # Step from which own texts alone are shown again; 0: synthetic ones are shown to the end
    c.nlip.completion.until = "0 epochs"
    # Instead of own captions those of another run: folder of the run, for its last ones, or of a
    # finished column such as runs/a/columns/synthetic_caption/0001
    c.nlip.completion.captions = ""
    # Texts left out of the loss: none | noise_prob: own ones that are noisy | match: own and
    # synthetic ones that do not match their image, by a mixture over similarities (as BLIP filters)
    c.nlip.completion.drop = "none"
    c.nlip.completion.drop_above = 0.5  # probability, of noise or of no match

    c.concepts = ConfigDict()  # words for what images show, given to the captioner of nlip
    c.concepts.top_k = 5  # of each image; 0: none
    c.concepts.vocabulary = ""  # file with one a line; empty: mined from the captions of the run
    c.concepts.tagger = "rules"  # rules | spacy:MODEL, one that you installed
    c.concepts.max_words = 3
    c.concepts.min_count = 5  # captions that name a concept, at least
    c.concepts.min_share = 4e-6  # the same as a share of all captions
    c.concepts.max_size = 20_000  # the most frequent ones
    c.concepts.max_captions = 1_000_000  # that are looked through
    c.concepts.prompt = "a photo of a {}."  # of a concept, when images are compared with it
    c.concepts.max_tokens = 6  # of a concept; longer ones are cut
    # What compares: own: the model in training | folder of a run | package.module:function
    c.concepts.retriever = "own"
    c.concepts.every = "0 epochs"  # with own: find them again so often; 0: before captions only
    c.concepts.dropout = 0.1  # share of pairs that are trained without concepts

    c.captions = ConfigDict()  # how models that can make captions do so
    # greedy | sample | top_k | nucleus | beam
    c.captions.decoding = "nucleus"
    c.captions.evaluation = "beam"  # the same, for evaluators
    c.captions.top_p = 0.9  # nucleus: of the probability
    c.captions.top_k = 50  # top_k: words
    c.captions.temperature = 1.0  # sample, top_k, nucleus
    c.captions.beams = 3  # beam
    c.captions.length_penalty = 1.0  # beam: above 0 favours longer captions
    c.captions.min_length = 5  # tokens, without [bos], prompt and [eos]
    c.captions.max_length = 20
    c.captions.repetition_penalty = 1.0  # above 1 makes words less likely that were there before
    c.captions.no_repeat_ngram = 0  # tokens in a row that never come twice; 0: they may
    # sample, top_k, nucleus: captions an image; kept is the one that matches its image best
    c.captions.candidates = 1
    # Captions are left out whose tokens have a lower probability (geometric mean); 0: none are
    c.captions.min_confidence = 0.0
    c.captions.prompt = ""  # what captions begin with, and what is taken off again

    # --- optimisation ---------------------------------------------------------------------------
    c.optimizer = ConfigDict()
    c.optimizer.name = "adamw"  # adamw | lamb | adafactor
    c.optimizer.learning_rate = 5e-4  # peak
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.98  # adamw and lamb
    c.optimizer.eps = 1e-6  # adamw and lamb
    c.optimizer.weight_decay = 0.1
    # By last name.
    c.optimizer.no_decay = (
        "bias",
        "scale",
        "position",
        "cls",
        "query",
        "log_scale",
        "logit_bias",
        "type",
        "memory_type",
        "mask_token",
    )
    c.optimizer.clip_norm = 1.0  # of the global gradient; 0: off

    c.schedule = ConfigDict()
    c.schedule.name = "cosine"  # constant | cosine | linear | rsqrt
    c.schedule.warmup = "5 %"  # linear rise to the peak
    c.schedule.end = 0.0  # final learning rate as a share of the peak (cosine, linear)
    c.schedule.timescale = "10000 steps"  # of rsqrt

    c.ema = ConfigDict()  # a moving average of the parameters
    c.ema.decay = 0.0  # such as 0.9999; 0: none is kept
    c.ema.evaluate = True  # evaluate the average rather than the parameters themselves

    c.spikes = ConfigDict()  # losses far above those of the steps before
    # off | record (in spikes.jsonl) | skip: record, and do not update; fixed once a run has begun
    c.spikes.action = "record"
    c.spikes.z_score = 8.0  # standard deviations above the mean that make a spike
    c.spikes.window = "200 steps"  # that mean and deviation look back on; none before its end
    c.spikes.max_skipped = 20  # steps in a row that may be left out, before the run stops

    # --- how the work is done (runtime) ---------------------------------------------------------
    c.accumulation = ConfigDict()
    c.accumulation.micro_batches = 1  # parts of a batch that go through the towers in turn
    c.accumulation.kind = "exact"  # every part sees the whole batch as candidates (GradCache)

    c.mesh = ConfigDict()
    c.mesh.slices = 1  # parts of the machine with a slow network between; they share `data`
    c.mesh.data = -1  # devices that share the batch; -1: all that are left
    c.mesh.fsdp = 1  # devices that share the batch and the parameters
    c.mesh.tensor = 1  # devices that share the heads and MLPs of every layer
    c.mesh.fsdp_min_bytes = 65_536  # smaller parameters stay replicated
    c.mesh.max_replicated = 0.1  # largest share of their bytes that may, with fsdp or tensor
    # "REGEX -> STRATEGY", the first that is found in a parameter's name: replicate, fsdp (splits
    # the longest axis that divides), or tensor:AXIS (counted from the end; others as with fsdp)
    c.mesh.rules = (
        "embedding/(embedding|kernel) -> tensor:-1",
        "attention/(query|key|value)/(kernel|bias) -> tensor:-2",
        "attention/out/kernel -> tensor:-3",
        "mlp/wide/(kernel|bias) -> tensor:-1",
        "mlp/narrow/kernel -> tensor:-2",
        ".* -> fsdp",
    )
    # Folder of compiled steps, for a quicker start; auto: in the workdir | none
    c.compilation_cache = "auto"

    c.checkpoint = ConfigDict()
    c.checkpoint.every = "10 %"
    c.checkpoint.keep = 2  # newest ones

    c.log = ConfigDict()
    c.log.every = "20 steps"
    c.log.tensorboard = True
    c.log.peak_tflops = 0.0  # of one device in bfloat16, for MFU; 0: by its kind

    c.evaluation = ConfigDict()
    c.evaluation.every = "0 steps"  # during training; 0: at the end only
    # Resamplings behind the 95 % intervals of the final results, NAME_low and NAME_high; 0: none
    c.evaluation.bootstrap = 1000
    # Images or texts that a device embeds at a time. The same number gives the same bits on any
    # number of devices; another one, other roundings.
    c.evaluation.rows_per_device = 32

    # Sets by kind: c.evaluators.KIND.SET = evaluators.KIND(...), see configs/evaluators.py.
    c.evaluators = ConfigDict()
    for kind in KINDS:
        c.evaluators[kind] = ConfigDict()

    c.report = ConfigDict()
    c.report.enabled = True  # write report.html and evaluation.html

    c.runtime = RUNTIME
    # A misspelt field is an error; what takes names of your own stays open.
    c.lock()
    for open_block in (c.data.mixture, c.evaluators, *c.evaluators.values()):
        open_block.unlock()
    return c
