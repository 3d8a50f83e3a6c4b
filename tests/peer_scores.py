"""A small problem, and what the code of pytorch-ood and OpenOOD says about it: values recorded once, by running it.

Both were run on the same float32 arrays (torch 2.13 on a CPU, scikit-learn 1.9.1, libmr 0.1.9, faiss 1.15.1). Their
confidence, larger = more known, is negated here; nothing else is changed. All training images were theirs to fit on, in one
batch or in batches of 50. OpenMax, whose tail was 20 and whose alpha was 3 in both, got those of pytorch-ood that are
classified right, which OpenOOD's chooses itself. In pytorch-ood, the nearest neighbour got normalised features, KL matching
the class that an image is given as its label, and ReAct the 90th percentile of training features as its threshold.
"""

from typing import Any, NamedTuple

import numpy as np

PYTORCH_OOD = "kkirchheim/pytorch-ood d04767360a382d2ea1678d5a571cae66b73e5206"
OPENOOD = "Jingkang50/OpenOOD 3c35632ee91b54b09d1f085d04f94744cece7d0b"


class Problem(NamedTuple):
    """160 training images of 4 classes, 69 % of them classified right, 12 features; 4 known and 4 unknown test images."""

    features: np.ndarray
    logits: np.ndarray
    label: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    test_features: np.ndarray
    test_logits: np.ndarray


def problem() -> Problem:
    """Float32, from a stream that NumPy keeps as it is."""
    rng = np.random.RandomState(7)
    label = np.arange(160) % 4
    centre = 1.5 * rng.rand(4, 12)
    features = np.maximum(centre[label] + 0.6 * rng.randn(160, 12), 0).astype(np.float32)
    kernel = (0.8 * centre.T + 0.2 * rng.randn(12, 4)).astype(np.float32)
    bias = (-0.4 * (centre**2).sum(1)).astype(np.float32)
    known = centre + 0.6 * rng.randn(4, 12)
    test = np.maximum(np.concatenate([known, 3 * rng.rand(4, 12)]), 0).astype(np.float32)
    return Problem(features, features @ kernel + bias, label, kernel, bias, test, test @ kernel + bias)


class Recorded(NamedTuple):
    """Scores of the 8 test images by a peer's function."""

    repository: str
    function: str
    score: str  # ours
    options: dict[str, Any]  # ours
    values: list[float]


RECORDED = [
    Recorded(
        PYTORCH_OOD,
        "MaxSoftmax.score",
        "msp",
        {},
        [-0.3521516, -0.8333619, -0.5685809, -0.3707284, -0.3433731, -0.4627201, -0.6520433, -0.6135046],
    ),
    Recorded(
        OPENOOD,
        "BasePostprocessor.postprocess",
        "msp",
        {},
        [-0.3521516, -0.8333619, -0.568581, -0.3707285, -0.3433731, -0.4627203, -0.6520435, -0.6135042],
    ),
    Recorded(
        PYTORCH_OOD,
        "MaxLogit.score",
        "max_logit",
        {},
        [-1.129107, -4.889188, -3.878307, -3.40274, -9.731635, -7.081324, -10.88418, -10.08655],
    ),
    Recorded(
        OPENOOD,
        "MaxLogitPostprocessor.postprocess",
        "max_logit",
        {},
        [-1.129107, -4.889188, -3.878307, -3.40274, -9.731635, -7.081324, -10.88418, -10.08655],
    ),
    Recorded(
        PYTORCH_OOD,
        "EnergyBased.score",
        "energy",
        {},
        [-2.1728, -5.071476, -4.442919, -4.395026, -10.80057, -7.851956, -11.31182, -10.57511],
    ),
    Recorded(
        OPENOOD,
        "EBOPostprocessor.postprocess",
        "energy",
        {},
        [-2.1728, -5.071476, -4.442919, -4.395026, -10.80057, -7.851956, -11.31182, -10.57512],
    ),
    Recorded(
        PYTORCH_OOD,
        "EnergyBased.score",
        "energy",
        {"temperature": 2.0},
        [-3.538847, -5.979868, -5.676401, -5.760865, -12.14459, -9.074011, -12.4875, -11.80583],
    ),
    Recorded(
        PYTORCH_OOD,
        "Entropy.score",
        "entropy",
        {},
        [1.346089, 0.5974394, 1.103899, 1.344904, 1.308457, 1.132713, 0.9889493, 1.077495],
    ),
    Recorded(
        OPENOOD,
        "GENPostprocessor.postprocess",
        "gen",
        {"top": 3},
        [2.546541, 2.355025, 2.524829, 2.546262, 2.559682, 2.560922, 2.474857, 2.481521],
    ),
    Recorded(
        OPENOOD,
        "GENPostprocessor.postprocess",
        "gen",
        {},
        [3.368794, 2.993956, 3.26762, 3.368659, 3.352087, 3.247094, 3.225121, 3.268408],
    ),
    Recorded(
        OPENOOD,
        "KLMatchingPostprocessor.postprocess",
        "kl_matching",
        {},
        [0.1308161, 0.1427308, 0.06918553, 0.1313812, 0.2423864, 0.1015656, 0.09907608, 0.04621893],
    ),
    Recorded(
        PYTORCH_OOD,
        "KLMatching.predict_features",
        "kl_matching",
        {},
        [0.1716563, 0.1427308, 0.06918555, 0.1313812, 0.2423864, 0.1015656, 0.09907605, 0.04621902],
    ),
    Recorded(
        PYTORCH_OOD,
        "Mahalanobis.predict_features",
        "mahalanobis",
        {},
        [9.514248, 4.970883, 5.976817, 5.843671, 22.75854, 28.87683, 31.57593, 35.16329],
    ),
    Recorded(
        OPENOOD,
        "MDSPostprocessor.postprocess",
        "mahalanobis",
        {},
        [19.14827, 10.00434, 12.02888, 11.7609, 45.8035, 58.11712, 63.54931, 70.76922],
    ),
    Recorded(
        PYTORCH_OOD,
        "RMD.predict_features",
        "relative_mahalanobis",
        {},
        [18.92264, 9.861078, 11.87233, 11.63239, 45.22134, 57.41275, 62.75043, 69.87721],
    ),
    Recorded(
        OPENOOD,
        "RMDSPostprocessor.postprocess",
        "relative_mahalanobis",
        {},
        [2.210712, -2.905743, -0.9800072, 2.968546, -1.513687, 3.570915, -0.6810379, -1.129181],
    ),
    Recorded(
        PYTORCH_OOD,
        "KNN.predict_features",
        "knn",
        {"k": 1},
        [0.5203002, 0.3266685, 0.4837337, 0.4185398, 0.3923055, 0.5375767, 0.4240927, 0.2939875],
    ),
    Recorded(
        OPENOOD,
        "KNNPostprocessor.postprocess",
        "knn",
        {"k": 5},
        [0.3283336, 0.254977, 0.2845872, 0.2437826, 0.2227228, 0.4011712, 0.2148237, 0.2779818],
    ),
    Recorded(
        PYTORCH_OOD,
        "ViM.predict_features",
        "vim",
        {"dim": 5},
        [3.329371, -1.434018, 0.3590608, -1.596658, -7.274598, 2.041687, -2.636023, -1.979954],
    ),
    Recorded(
        OPENOOD,
        "VIMPostprocessor.postprocess",
        "vim",
        {"dim": 5},
        [3.329371, -1.434018, 0.3590608, -1.596658, -7.274598, 2.041687, -2.636023, -1.979954],
    ),
    Recorded(
        PYTORCH_OOD,
        "ReAct.predict",
        "react",
        {},
        [-2.1728, -4.387389, -4.404956, -4.213902, -8.239335, -6.262167, -8.571427, -7.950316],
    ),
    Recorded(
        OPENOOD,
        "ReactPostprocessor.postprocess",
        "react",
        {},
        [-2.1728, -4.387389, -4.404956, -4.213902, -8.239335, -6.262167, -8.571427, -7.950316],
    ),
    Recorded(
        PYTORCH_OOD,
        "ASH.predict",
        "ash",
        {"percentile": 65, "variant": "p"},
        [-0.7627757, -4.084361, -2.667267, -2.10791, -5.211615, -3.878299, -5.275523, -4.121836],
    ),
    Recorded(
        PYTORCH_OOD,
        "ASH.predict",
        "ash",
        {"percentile": 65, "variant": "b"},
        [-2.19709, -5.494475, -5.05106, -5.657378, -13.05975, -9.00706, -13.59686, -10.53353],
    ),
    Recorded(
        PYTORCH_OOD,
        "ASH.predict",
        "ash",
        {"percentile": 65, "variant": "s"},
        [-11.70014, -20.83789, -20.19299, -23.04596, -56.34742, -35.07317, -62.11428, -43.09745],
    ),
    Recorded(
        OPENOOD,
        "ASHPostprocessor.postprocess",
        "ash",
        {"percentile": 65, "variant": "b"},
        [-2.19709, -5.494475, -5.05106, -5.657379, -13.05975, -9.00706, -13.59686, -10.53353],
    ),
    Recorded(
        PYTORCH_OOD,
        "DICE.predict_features",
        "dice",
        {"percentile": 70},
        [-0.9753834, -4.875715, -2.428864, -2.011807, -7.549652, -4.391944, -5.844097, -6.248575],
    ),
    Recorded(
        OPENOOD,
        "DICEPostprocessor.postprocess",
        "dice",
        {"percentile": 70},
        [-0.9753834, -4.875715, -2.428864, -2.011807, -7.549652, -4.391944, -5.844097, -6.248575],
    ),
    Recorded(
        PYTORCH_OOD,
        "OpenMax.predict",
        "openmax",
        {"shift": 10_000.0},
        [0.458974, 0.4381856, 0.05407761, 0.1185631, 0.9999751, 0.9998345, 0.999992, 0.99997],
    ),
    Recorded(
        OPENOOD,
        "OpenMax.postprocess",
        "openmax",
        {},
        [0.4765811, 0.3181949, 0.03659665, 0.1005801, 0.9999751, 0.9998325, 0.999992, 0.99997],
    ),
]
