"""Which environment variables of the platform a child that runs other people's code may see. Pure.

The platform's own environment may hold credentials: of the database, of clouds, of whoever started it.
"""

import re
from collections.abc import Mapping

_NAMES = frozenset(
    (
        *("PATH", "LANG", "LANGUAGE", "TZ", "TZDIR", "USER", "LOGNAME", "SHELL", "TERM", "HOSTNAME", "LD_PRELOAD"),
        *("LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *("TRANSFORMERS_OFFLINE", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS"),
        *("POLARS_MAX_THREADS", "NO_COLOR", "SOURCE_DATE_EPOCH"),
    )
)
# Of the interpreter and the allocator, and of the numerical libraries and drivers.
_PREFIXES = (
    *("LC_", "PYTHON", "MALLOC_", "GLIBC_TUNABLES", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "BLIS_", "MKL_"),
    *("VECLIB_", "NUMEXPR_", "NUMBA_", "NPY_", "JOBLIB_", "LOKY_", "ORT_", "ONNX", "TORCH", "PYTORCH_", "TRITON_"),
    *("TF_", "XLA_", "CUDA_", "CUDNN_", "CUBLAS_", "NCCL_", "NVIDIA_", "ROCM_", "HIP_", "HSA_", "XGBOOST_"),
)
_SECRET = re.compile(r"TOKEN|SECRET|PASS|CREDENTIAL|AUTH|APIKEY|(^|_)KEY", re.IGNORECASE)


def scrub(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that say how programs and libraries are to run, and nothing that looks like a secret.

    >>> scrub({"LANG": "C", "OMP_NUM_THREADS": "2", "AWS_SECRET_ACCESS_KEY": "x", "PYTHON_TOKEN": "x", "MINE": "x"})
    {'LANG': 'C', 'OMP_NUM_THREADS': '2'}
    """
    return {
        name: value
        for name, value in environ.items()
        if (name in _NAMES or name.startswith(_PREFIXES)) and not _SECRET.search(name)
    }
