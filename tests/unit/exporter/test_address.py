from __future__ import annotations

import pytest

from billing_cli.config.source import Source
from billing_cli.exporter.address import endpoint_of, proxy_url_of
from billing_cli.exporter.api import ExporterError


@pytest.mark.parametrize(
    ("base_url", "url", "label"),
    [
        ("https://jp-1.example", "https://jp-1.example:443/v1/x", "jp-1.example:443"),
        ("https://jp-1.example/", "https://jp-1.example:443/v1/x", "jp-1.example:443"),
        (
            "https://JP-1.example:8443/a/b/",
            "https://jp-1.example:8443/a/b/v1/x",
            "jp-1.example:8443",
        ),
        ("https://192.0.2.7:9000", "https://192.0.2.7:9000/v1/x", "192.0.2.7:9000"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:443/v1/x", "[2001:db8::1]:443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/x", "127.0.0.1:8080"),
        ("http://127.8.8.8", "http://127.8.8.8:80/v1/x", "127.8.8.8:80"),
        ("http://localhost/p", "http://localhost:80/p/v1/x", "localhost:80"),
        ("http://[::1]:1", "http://[::1]:1/v1/x", "[::1]:1"),
    ],
)
def test_an_address_may_have_port_and_path(base_url: str, url: str, label: str) -> None:
    """A path prefix stays, a slash at its end makes no difference."""
    endpoint = endpoint_of(Source("s", base_url))
    assert (endpoint.url("/v1/x"), endpoint.label) == (url, label)
    assert endpoint.secure == base_url.startswith("https")
    assert not endpoint.exposed


@pytest.mark.parametrize(
    "base_url",
    [
        "http://jp-1.example",
        "http://192.0.2.7",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://[::ffff:127.0.0.1]",
        "http://0.0.0.0",
        "http://2130706433",
        "http://127.1",
    ],
)
def test_plain_http_is_for_loopback(base_url: str) -> None:
    """Anything else needs the source's explicit word, however much it looks like loopback."""
    with pytest.raises(ExporterError, match="another host than loopback"):
        endpoint_of(Source("s", base_url))
    endpoint = endpoint_of(Source("s", base_url, allow_http=True))
    assert endpoint.exposed
    assert not endpoint.secure


def test_plain_http_through_a_proxy_leaves_this_machine() -> None:
    """The proxy would see the token, and could change the answers."""
    proxy = "http://127.0.0.1:3128"
    with pytest.raises(ExporterError, match="http:// through a proxy; use https://"):
        endpoint_of(Source("s", "http://127.0.0.1", proxy=proxy))
    assert endpoint_of(Source("s", "http://127.0.0.1", proxy=proxy, allow_http=True)).exposed
    assert not endpoint_of(Source("s", "https://127.0.0.1", proxy=proxy)).exposed


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "ftp://jp-1.example",
        "https://user:hunter2@jp-1.example",
        "http://127.0.0.1\\@hunter2.example",
        "https://jp-1.example?token=hunter2",
        "https://jp-1.example:hunter2",
    ],
)
def test_an_address_that_is_none_is_not_repeated(base_url: str) -> None:
    """What is wrong with it may be a password."""
    with pytest.raises(ExporterError) as caught:
        endpoint_of(Source("s", base_url))
    assert caught.value.reason.startswith("base_url ")
    assert "hunter2" not in caught.value.reason


def test_a_certificate_is_of_no_use_without_tls() -> None:
    """`mtls` over plain HTTP would prove nothing to anybody."""
    with pytest.raises(ExporterError, match="auth_mode mtls needs an https:// base_url"):
        endpoint_of(Source("s", "http://127.0.0.1", auth_mode="mtls"))


def test_a_proxy_is_plain_http_and_named_by_the_source() -> None:
    """None is taken from anywhere else."""
    assert proxy_url_of(Source("s", "https://jp-1.example")) is None
    source = Source("s", "https://jp-1.example", proxy="http://proxy.example:3128/")
    assert proxy_url_of(source) == "http://proxy.example:3128"
    source = Source("s", "https://jp-1.example", proxy="http://[::1]:3128")
    assert proxy_url_of(source) == "http://[::1]:3128"


@pytest.mark.parametrize(
    "proxy",
    [
        "https://proxy.example",
        "socks5://proxy.example",
        "http://u:hunter2@proxy.example",
        "http://p/x",
    ],
)
def test_any_other_proxy_is_refused(proxy: str) -> None:
    """Credentials in its address would be seen wherever the source is shown."""
    with pytest.raises(ExporterError, match="proxy") as caught:
        proxy_url_of(Source("s", "https://jp-1.example", proxy=proxy))
    assert "hunter2" not in caught.value.reason
