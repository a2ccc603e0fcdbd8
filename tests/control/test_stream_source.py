"""The URL of a stream says all of it, and one that is wrong is refused without telling its password."""

import pytest

from hyperion.control.jobs.stream_kafka import consumer_config, producer_config
from hyperion.control.jobs.stream_source import Source, read_source, source_of
from hyperion.schema.errors import InvalidConfig

INFER = "/v2/models/e/infer"


@pytest.mark.parametrize(
    ("url", "source"),
    [
        (
            "nats://u:p@b:4222/S/c?endpoint=e&path=/v1/models/e:predict&tenant=t&reply=r.s",
            Source("nats://u:p@b:4222", "S", "c", "e", "/v1/models/e:predict", "t", "r.s"),
        ),
        ("nats://token@b/S/c?endpoint=e", Source("nats://token@b", "S", "c", "e", INFER)),
        ("kafka://b:9092/T/g?endpoint=e", Source("kafka://b:9092", "T", "g", "e", INFER)),
        ("kafka://b/T/g%2F1?endpoint=e&tenant=t&reply=r", Source("kafka://b", "T", "g/1", "e", INFER, "t", "r")),
        ("kafka://b/T/g?endpoint=e&tls=false", Source("kafka://b", "T", "g", "e", INFER)),
        ("kafka://b/T/g?endpoint=e&tls=true", Source("kafka+tls://b", "T", "g", "e", INFER)),
        ("kafka+tls://b/T/g?endpoint=e&ca=/c.pem", Source("kafka+tls://b", "T", "g", "e", INFER, ca="/c.pem")),
        ("kafka://b/T/g?endpoint=e&session_s=45", Source("kafka://b", "T", "g", "e", INFER, session_s=45.0)),
        ("kafka://u:p@b/T/g?endpoint=e", Source("kafka://u:p@b", "T", "g", "e", INFER, sasl="plain")),
        (
            "kafka+tls://u:p@b/T/g?endpoint=e&sasl=scram-sha-512",
            Source("kafka+tls://u:p@b", "T", "g", "e", INFER, sasl="scram-sha-512"),
        ),
    ],
)
def test_a_source_is_read(url: str, source: Source) -> None:
    assert read_source(url) == source


@pytest.mark.parametrize(
    "url",
    [
        "",
        "amqp://b/S/c?endpoint=e",
        "nats://b/S?endpoint=e",
        "nats://b/S/c",
        "nats://b/S/c?endpoint=e&x=1",
        "nats://b/S/c?endpoint=e&tls=true",
        "kafka://b/T?endpoint=e",
        "kafka://b/T/g",
        "kafka:///T/g?endpoint=e",
        "kafka://b:x/T/g?endpoint=e",
        "kafka://b:99999/T/g?endpoint=e",
        "kafka://b/T/g?endpoint=e&x=1",
        "kafka://b/T/g?endpoint=e&tls=maybe",
        "kafka://b/T/g?endpoint=e&session_s=0",
        "kafka://b/T/g?endpoint=e&session_s=nan",
        "kafka://b/T/g?endpoint=e&session_s=long",
        "nats://b/S/c?endpoint=e&session_s=9",
        "kafka://b:0/T/g?endpoint=e",
        "kafka://b/T/g?endpoint=e&ca=/c.pem",
        "kafka://b/T/g?endpoint=e&sasl=plain",
        "kafka://u:secret@b/T/g?endpoint=e&sasl=gssapi",
        "kafka://u:secret@b/T",
        "kafka://u:sec/secret@b/T/g?endpoint=e",
        "kafka://u@b/T/g?endpoint=e",
    ],
)
def test_what_is_no_source_is_refused_without_its_password(url: str) -> None:
    form = "kafka://HOST" if url.startswith("kafka") else "nats://HOST"
    with pytest.raises(InvalidConfig, match=f"--streams: expected {form}") as refused:
        read_source(url)
    assert "sec" not in refused.value.message


@pytest.mark.parametrize(
    ("server", "secrets"),
    [
        ("nats://b", set()),
        ("nats://token@b", {"token"}),
        ("nats://u:p@b", {"p"}),
        ("kafka://u:p%2Fw@b", {"p%2Fw", "p/w"}),
    ],
)
def test_what_no_log_may_say(server: str, secrets: set[str]) -> None:
    assert set(read_source(f"{server}/S/c?endpoint=e").secrets) == secrets


@pytest.mark.parametrize("server", ["kafka://u:p@b:9092", "kafka+tls://u:p@b:9092", "kafka://b:9092"])
def test_where_answers_go_has_no_credentials_in_it_and_leads_there(server: str) -> None:
    source = read_source(f"{server}/T/g?endpoint=e&reply=r")
    assert source.callback == "kafka://b:9092/r"
    again = source_of(source.callback)
    assert (again.kind, again.place, again.reply) == ("kafka", "kafka://b:9092", "r")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("kafka://b:9092/T/g?endpoint=e", {"security.protocol": "PLAINTEXT"}),
        ("kafka+tls://b/T/g?endpoint=e", {"security.protocol": "SSL", "ssl.ca.location": "probe"}),
        ("kafka+tls://b/T/g?endpoint=e&ca=/c.pem", {"security.protocol": "SSL", "ssl.ca.location": "/c.pem"}),
        (
            "kafka://u:p%2Fw@b:9092/T/g?endpoint=e",
            {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanisms": "PLAIN",
                "sasl.username": "u",
                "sasl.password": "p/w",
            },
        ),
        (
            "kafka+tls://u:p@b/T/g?endpoint=e&sasl=scram-sha-256",
            {
                "security.protocol": "SASL_SSL",
                "ssl.ca.location": "probe",
                "sasl.mechanisms": "SCRAM-SHA-256",
                "sasl.username": "u",
                "sasl.password": "p",
            },
        ),
    ],
)
def test_the_url_chooses_how_kafka_is_spoken_to(url: str, expected: dict[str, str]) -> None:
    source = read_source(url)
    for config in (consumer_config(source), producer_config(source)):
        chosen = {key: value for key, value in config.items() if key.startswith(("security.", "sasl.", "ssl."))}
        assert chosen == expected
        assert config["bootstrap.servers"] == source.place.removeprefix("kafka://")
