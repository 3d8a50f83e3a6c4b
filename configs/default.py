"""All config fields with their defaults. Your own config starts from `get_config()` and overrides some of them.

The defaults suit the full AlexNet at 224x224 on an accelerator. `data.known` and `data.negatives` must be set.
"""

import ml_collections
from ml_collections import config_dict


def images(source, classes=(), limit=0, group="", train="train", validation="", test="test"):
    """Selects classes of one source for one role; see `data` below."""
    return config_dict.create(
        source=source,  # "tfds:NAME", "folder:PATH", "packed:PATH", "digits", or "features:PATH" for vectors
        classes=tuple(classes),  # its classes to use, known classes in label order; () for all
        limit=limit,  # maximum number of images of each class, over all splits; 0 for no limit
        group=group,  # one group name for all these classes (not for known classes); "": each class is a group
        train=train,  # name of this split in the source; "" if it has none. TFDS slices work: "train[:80%]".
        validation=validation,  # "": validation images are split off the training images, by a hash of their id
        test=test,  # "": without a test split; if validation is "" too, test images are split off by hash
    )


def interval(steps):
    """Returns a field that holds a number of steps or a text such as "10%"."""
    return config_dict.FieldReference(steps, field_type=object)


def get_config():
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.steps = 50_000  # optimizer steps
    # instead of steps: times that every training image of the known classes is drawn, on average; None: `steps`
    config.epochs = config_dict.placeholder(float)
    config.batch_size = 256  # of all devices together
    # log_every, optimizer.warmup_steps, eval.every and checkpoint.every: steps, or a share of all steps, as "10%"
    config.log_every = interval(100)
    # "stream": the host reads every batch; "resident": all images are copied to device memory at the start; "auto":
    # resident if they are packed (or digits) and take at most 75 % of the free memory, otherwise stream
    config.input = "auto"
    config.shard_resident = False  # spread resident images over the devices, if one device cannot hold all
    # warm start: "", the folder of a run, a file of weights (.safetensors, .pth, .pt), or "pretrained", the network's own
    config.init_from = ""
    config.trainable = "all"  # layers that training changes: "head" (the last), a group and all layers above it, or "all"
    config.steps_per_call = 1  # steps per call, without the host; must divide steps, log_every and every *.every

    # Each role is None, one images(...), or a tuple of several. A class belongs to only one role, and so does an image.
    config.data = data = ml_collections.ConfigDict()
    data.known = config_dict.placeholder(object)  # the K known classes
    # trained on as "none"; their test images are reported as "seen negatives"
    data.negatives = config_dict.placeholder(object)
    # never trained on; their validation images select the checkpoint and the threshold
    data.held_out_negatives = config_dict.placeholder(object)
    data.negative_groups = config_dict.placeholder(int)  # number of groups, drawn by the seed; None for all
    data.unknown = config_dict.placeholder(object)  # never trained on, test images only: reported as "unseen unknowns"
    data.packed = ""  # a folder that openset_jax.prepare wrote for this config: all roles are read from there
    data.tfds_data_dir = ""  # folder of prepared TFDS data sets; "" for TFDS's default
    data.stored_size = 256  # pixels: the host scales the shorter side to this, and crops the centre square
    data.image_size = 224  # pixels of the network's input, a crop of the stored image
    data.vector_size = 0  # of sources of vectors: their number of features; 0: set from the source
    data.grey = False  # convert every image to grey
    data.mean = config_dict.placeholder(tuple)  # of pixels in [0, 1], subtracted; None: those of the network's weights
    data.std = config_dict.placeholder(tuple)  # of pixels in [0, 1], the divisor; None: those of the network's weights
    data.validation_fraction = 0.1  # share split off for validation, if the source has no such split
    data.test_fraction = 0.2  # share split off for testing, if the source has no splits at all
    data.max_bad_fraction = 0.01  # unreadable images are skipped; a larger share of them ends the run
    data.max_pixels = 100_000_000  # larger images count as unreadable; decoding one takes up to 10 bytes per pixel

    config.augment = augment = ml_collections.ConfigDict()
    augment.pad = 0  # pixels of zeros around the stored image before the random crop
    augment.crop = True  # a random crop of the stored image; False: its centre
    augment.flip = True  # mirror half of the images

    config.sampling = sampling = ml_collections.ConfigDict()
    # natural, undersample, undersample_fresh, oversample, balanced, negative_fraction or two_phase
    sampling.policy = "natural"
    # maximum number of negative training images; "3x": three times the mean size of a known class; None for all
    sampling.negatives = config_dict.placeholder(object)
    # artificial imbalance of the known classes, in training only: "step:mu=0.5,rho=100" (half of the classes, drawn by
    # the seed, are 100 times smaller) or "linear:rho=100" (sizes from 1 to 100 in equal steps)
    sampling.imbalance = ""
    sampling.first_policy = "oversample"  # two_phase: policy of the first phase, which trains all layers
    sampling.first_share = 0.5  # two_phase: share of steps in the first phase; the second: natural, `trainable`
    sampling.negative_fraction = 0.5  # share of negatives in each batch, with policy "negative_fraction"

    config.model = model = ml_collections.ConfigDict()
    model.name = "alexnet"  # or another network of configs/README.md#networks
    model.width = 1.0  # multiplies the number of channels
    model.stem = ""  # "": the network's own (alexnet: "imagenet", 11x11 stride 4); or "small" for images of 16 to 64 pixels
    model.norm = ""  # "": the network's own; or "none", "batch", "local_response"
    model.dropout = config_dict.placeholder(float)  # rate; None: the network's own (alexnet: 0.5)
    model.dtype = "auto"  # of the computation: "bfloat16" on GPU and TPU, "float32" on CPU. Parameters are float32.

    config.objective = objective = ml_collections.ConfigDict()
    # background: softmax over K classes and "none"; one_vs_rest: K sigmoids, negatives have the all-zeros label; softmax:
    # knowns only; entropic, objectosphere, outlier_exposure, energy_margin: softmax over K classes, and a term for negatives
    objective.name = "background"
    # weight of the mean loss of negatives relative to that of knowns; None: 0.5 for outlier_exposure, 0.1 for
    # energy_margin, and one mean over all examples for the other objectives
    objective.negative_weight = config_dict.placeholder(float)
    objective.class_weights = "none"  # or "inverse_frequency", "effective_number"
    objective.effective_number_beta = 0.9999
    objective.logit_adjustment = 0.0  # tau; 1 is balanced softmax
    objective.magnitude = 50.0  # objectosphere: minimum norm of the features of knowns
    objective.ring_weight = 1e-4  # objectosphere: weight of the term on feature norms
    objective.margins = config_dict.placeholder(object)  # energy_margin: (knowns, negatives), in nats; None: measured

    # Decisions: fitted on validation images, saved with the run, used by evaluate and predict.
    config.decision = decision = ml_collections.ConfigDict()
    decision.rule = "keep_knowns"  # or "accept_negatives", "least_cost"
    decision.keep_knowns = 0.95  # minimum share of known images to accept
    decision.accept_negatives = 0.01  # maximum share of negatives to accept
    # class frequencies of the deployment: "none=0.6" (the others share the rest); "": the training prior, or uniform if
    # training has no negatives
    decision.prior = ""
    decision.costs = ""  # costs of mistakes: "accept_none=5,confuse_knowns=1,reject_known=1", or a JSON table; "": all 1
    decision.calibration = ""  # "temperature", "logistic", "isotonic", "none"; "": chosen by the objective

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.learning_rate = 1e-4  # with Adam's usual 1e-3, AlexNet without batch normalisation does not train
    optimizer.schedule = "cosine"  # to 0 at the last step; or "constant"
    optimizer.warmup_steps = interval(1_000)  # linear, from 0
    optimizer.b1 = 0.9
    optimizer.b2 = 0.99
    optimizer.eps = 1e-8
    optimizer.weight_decay = 1e-4  # decoupled, on kernels
    optimizer.grad_clip = 1.0  # global norm; 0 for none
    optimizer.all_reduce_dtype = "float32"  # of gradients between devices; "bfloat16" halves the bytes

    config.eval = evaluation = ml_collections.ConfigDict()
    evaluation.every = interval(1_000)  # steps between evaluations on the validation split
    evaluation.batch_size = 512  # of all devices together
    evaluation.resamples = 2_000  # maximum number of bootstrap resamples of a confidence interval; at least 10
    evaluation.compare_scores = True  # fit and compare all open-set scores at the end

    config.checkpoint = checkpoint = ml_collections.ConfigDict()
    checkpoint.every = interval(1_000)  # steps between checkpoints; the last and the best are kept

    config.early_stopping = stopping = ml_collections.ConfigDict()
    stopping.metric = "auroc"  # selects checkpoints on validation images; or "accuracy", "balanced_accuracy" (of K + 1)
    stopping.patience = 0  # evaluations without improvement before stopping; 0 for never
    return config.lock()  # so that a misspelt field is an error
