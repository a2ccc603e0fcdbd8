"""What a confined child sees of the platform's environment."""

import pytest

from hyperion.fleet.environment import scrub


@pytest.mark.parametrize(
    "name",
    [
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HYPERION_DATABASE_URL", "PGPASSWORD", "HF_TOKEN", "HOME"),
        *("SSH_AUTH_SOCK", "GOOGLE_APPLICATION_CREDENTIALS", "PYTHON_KEYRING_PASSWORD", "NVIDIA_API_KEY"),
        *("TORCH_HUB_TOKEN", "http_proxy", "KUBECONFIG", "ANYTHING"),
    ],
)
def test_what_may_hold_a_secret_is_not_passed_on(name: str) -> None:
    assert scrub({name: "x"}) == {}


@pytest.mark.parametrize(
    "name", ["PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"]
)
def test_what_programs_need_is_passed_on(name: str) -> None:
    assert scrub({name: "x"}) == {name: "x"}
