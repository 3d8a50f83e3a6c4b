"""Every field, with its default. A config of your own starts from `get_config()` here and changes what differs.

The defaults suit the full AlexNet at 224x224 on an accelerator. `data.known` and `data.negatives` must be set.
"""

import ml_collections
from ml_collections import config_dict


def images(source, classes=(), limit=0, group="", train="train", validation="", test="test"):
    """Images for one role: classes of a source. See `data` below."""
    return config_dict.create(
        source=source,  # "tfds:NAME", "folder:PATH", "packed:PATH" or "digits"
        classes=tuple(classes),  # which of its classes, known ones in label order; () for all
        limit=limit,  # at most so many images of each class, over all splits; 0 for all
        group=group,  # count all these classes as one group of this name (not for known classes); "" for each its own
        train=train,  # what the source calls its splits; "" where it has none. TFDS slices work: "train[:80%]".
        validation=validation,  # "": validation images are taken out of the training images, by a hash of their id
        test=test,  # "" here and in validation: test images too
    )


def get_config():
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.steps = 50_000  # optimizer steps
    config.batch_size = 256  # of all devices together
    config.log_every = 100  # steps
    # "stream": the host reads every batch; "resident": all images are copied to the devices' memory at the start;
    # "auto": resident where they are packed and take no more than 75 % of the free memory, else stream
    config.input = "auto"
    config.shard_resident = False  # spread them over the devices, where one device cannot hold them all
    config.init_from = ""  # the folder of a run whose network this one begins with; its outputs are kept by class name
    config.trainable = "all"  # which layers training changes: "all", "fc" (the fully connected) or "head" (the last)
    config.steps_per_call = 1  # steps that the devices do without the host; must divide steps, log_every and every *.every

    # Each role is None, one images(...), or a tuple of several. A class, and an image, has one role.
    config.data = data = ml_collections.ConfigDict()
    data.known = config_dict.placeholder(object)  # the K classes to tell apart
    data.negatives = config_dict.placeholder(
        object
    )  # trained on as "none"; their test images are reported as "seen negatives"
    data.held_out_negatives = config_dict.placeholder(
        object
    )  # never trained on: validation images for selecting and stopping
    data.negative_groups = config_dict.placeholder(int)  # only so many of the kinds of negatives, chosen by the seed
    data.unknown = config_dict.placeholder(object)  # never trained on, test images only: reported as "unseen unknowns"
    data.packed = ""  # a folder that openset_jax.prepare wrote for this config: read all roles from there
    data.tfds_data_dir = ""  # where TFDS data sets are prepared; "" for TFDS's default
    data.stored_size = 256  # the host scales the shorter side to this, and cuts the centre square
    data.image_size = 224  # the network's input, a crop of the stored image
    data.grey = False  # turn every image grey
    data.mean = (0.485, 0.456, 0.406)  # subtracted, of [0, 1] pixels: ImageNet's
    data.std = (0.229, 0.224, 0.225)  # divided by
    data.validation_fraction = 0.1  # share taken for validation, where the source has no validation split
    data.test_fraction = 0.2  # share taken for testing, where the source has no splits at all
    data.max_bad_fraction = 0.01  # images that cannot be read are skipped; a larger share of them ends the run

    config.augment = augment = ml_collections.ConfigDict()
    augment.pad = 0  # pixels of zeros around the stored image before the random crop
    augment.flip = True  # mirror half of the images

    config.sampling = sampling = ml_collections.ConfigDict()
    # natural, undersample, undersample_fresh, oversample, balanced, negative_fraction or two_phase
    sampling.policy = "natural"
    sampling.negatives = config_dict.placeholder(object)  # so many negative training images at most; "3x" for three times
    # as many as a known class has on average; None for all
    sampling.imbalance = ""  # known classes are made to differ in size, in training alone: "step:mu=0.5,rho=100" (half of
    # the classes, chosen by the seed, are 100 times smaller) or "linear:rho=100" (sizes evenly from 1 to 100)
    sampling.first_policy = "oversample"  # two_phase: how the first phase, which trains all layers, draws
    sampling.first_share = 0.5  # two_phase: of the steps; the second phase draws `natural`, and trains `trainable`
    sampling.negative_fraction = 0.5  # of each batch, with policy "negative_fraction"

    config.model = model = ml_collections.ConfigDict()
    model.name = "alexnet"  # or "alexnet_2012": two groups, local response normalisation
    model.width = 1.0  # multiplies the number of channels
    model.stem = "imagenet"  # 11x11 stride 4; "small" for images of 16 to 64 pixels
    model.norm = ""  # the network's own; or "none", "batch", "local_response"
    model.dropout = 0.5  # before fc6 and fc7
    model.dtype = "auto"  # of the computation: "bfloat16" on GPU and TPU, "float32" on CPU. Parameters are float32.

    config.objective = objective = ml_collections.ConfigDict()
    # background: softmax over K classes and "none"; one_vs_rest: K sigmoids, negatives have the all-zeros label; softmax:
    # knowns alone; entropic, objectosphere, outlier_exposure, energy_margin: K classes, and a term for negatives
    objective.name = "background"
    objective.negative_weight = config_dict.placeholder(float)  # mass of all negatives for each unit of all knowns; None:
    # the objective's own: 0.5 for outlier_exposure, 0.1 for energy_margin, else every example counts the same
    objective.class_weights = "none"  # or "inverse_frequency", "effective_number"
    objective.effective_number_beta = 0.9999
    objective.logit_adjustment = 0.0  # tau; 1 is balanced softmax
    objective.magnitude = 50.0  # objectosphere: how long features of knowns are to be
    objective.ring_weight = 1e-4  # objectosphere: weight of the term about lengths
    objective.margins = config_dict.placeholder(object)  # energy_margin: (of knowns, of negatives); None: measured

    # From scores to decisions; chosen on validation images, saved with the run, used by evaluate and predict.
    config.decision = decision = ml_collections.ConfigDict()
    decision.rule = "keep_knowns"  # or "accept_negatives", "least_cost"
    decision.keep_knowns = 0.95  # the share of known images to accept, at least
    decision.accept_negatives = 0.01  # the share of negatives to accept, at most
    decision.prior = ""  # how often each class comes in use: "none=0.6" (the others share the rest); "" for as in training
    decision.costs = ""  # of mistakes: "accept_none=5,confuse_knowns=1,reject_known=1", or a table as JSON; "" for all 1
    decision.calibration = ""  # "temperature", "logistic", "isotonic", "none"; "" for what suits the objective

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.learning_rate = 1e-4  # Adam's customary 1e-3 kills AlexNet without batch normalisation
    optimizer.schedule = "cosine"  # to 0 at the last step; or "constant"
    optimizer.warmup_steps = 1_000  # linear, from 0
    optimizer.b1 = 0.9
    optimizer.b2 = 0.99
    optimizer.eps = 1e-8
    optimizer.weight_decay = 1e-4  # decoupled, on kernels
    optimizer.grad_clip = 1.0  # global norm; 0 for none
    optimizer.all_reduce_dtype = "float32"  # of gradients between devices; "bfloat16" halves the bytes

    config.eval = evaluation = ml_collections.ConfigDict()
    evaluation.every = 1_000  # steps between evaluations on the validation split
    evaluation.batch_size = 512  # of all devices together
    evaluation.compare_scores = True  # at the end, fit all scores of unknownness on training images, and compare them

    config.checkpoint = checkpoint = ml_collections.ConfigDict()
    checkpoint.every = 1_000  # steps; the last and the best step are kept

    config.early_stopping = stopping = ml_collections.ConfigDict()
    stopping.metric = "auroc"  # of knowns against negatives on validation; or "accuracy", "balanced_accuracy" (K+1)
    stopping.patience = 0  # evaluations without improvement before stopping; 0 for never
    return config.lock()  # a field that is not here is a slip of the pen
