"""Callback URLs that lead where no callback may go, or that two parsers read differently."""

from __future__ import annotations

NUMBERS = [
    "http://2130706433/", "http://017700000001/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/",
    "http://0x7f.0x0.0x0.0x1/", "http://127.1/", "http://127.0.1/", "http://10.1/", "http://0/", "http://0x0/",
    "http://00000000177.0.0.1/", "http://127.0.0.1.1/", "http://256.256.256.256/", "http://1.2.3/",
    "http://192.168.010.1/", "http://3232235777/", "http://0xc0a80101/", "http://0xa9fea9fe/", "http://2852039166/",
    "http://0251.0376.0251.0376/", "http://169.254.43518/", "http://127.0.0.1.:80.80/", "http://0x/",
    "http://99999999999/", "http://1.1.1.0x1/", "http://example.1/", "http://127.0.0.01/",
]  # fmt: skip
"""Other spellings of addresses: refused whatever they stand for."""

V6 = [
    "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::ffff:169.254.169.254]/", "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1::808:808]/",
    "http://[2002:7f00:1::]/", "http://[2002:a9fe:a9fe::]/", "http://[2001:0:4136:e378:8000:63bf:f5ff:fffe]/",
    "http://[::]/", "http://[0:0:0:0:0:0:0:0]/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[ff02::1]/",
    "http://[fd00:ec2::254]/latest/meta-data/", "http://[::1", "http://::1/", "http://[v1.x]/", "http://[]/",
    "http://[::ffff:8.8.8.8]/", "http://[1:2]/", "http://[::1]x/",
]  # fmt: skip

METADATA = [
    "http://169.254.169.254/latest/meta-data/", "https://169.254.169.254/", "http://169.254.170.2/v2/credentials",
    "http://metadata.google.internal/computeMetadata/v1/", "http://METADATA.google.INTERNAL./", "http://metadata.goog/",
    "http://instance-data/latest/", "http://100.100.100.200/latest/", "http://192.0.0.192/opc/v2/", "http://0.0.0.0/",
    "http://0.0.0.0:8080/", "http://255.255.255.255/", "http://224.0.0.1/", "http://240.0.0.1/",
]  # fmt: skip

SPELLING = [
    "http://user@example.com/", "http://user:pass@example.com/", "http://:@example.com/", "http://example.com@127.0.0.1/",
    "http://127.0.0.1@example.com/", "http://a@b@example.com/", "http://good.example\\@127.0.0.1/",
    "http://example.com\\.evil.example/", "http://exa mple.com/", " http://example.com/", "http://example.com/ ",
    "http://example.com/\n", "http://example.com/\r\nHost: x", "http://exa\tmple.com/", "http://example.com/\x00",
    "http://example.com\x7f/", "http://b\u00fccher.example/", "http://127\u30020\u30020\u30021/",
    "http://\uff11\uff12\uff17.0.0.1/", "http://\u2460\u2461\u2466.0.0.1/", "http://loc\u0430lhost/",
    "http://example.com\u2215@evil/", "http://exa\u00admple.com/", "http://127%2e0%2e0%2e1/", "http://%6cocalhost/",
    "http://ex%61mple.com/", "http://-example.com/", "http://example-.com/", "http://example..com/", "http://.com/",
    "http://example.com../", "http://exa<mple.com/", "http://exa|mple.com/", "http://exa^mple/", "http://`id`/",
    "http://{host}/", 'http://"host"/', "http://" + "a" * 64 + ".example/", "http://" + "a." * 130 + "example/",
    "http://example.com/" + "x" * 10_240, "http://exam!ple.com/", "http://exam$ple.com/", "http://a,b/",
]  # fmt: skip

SCHEMES = [
    "ftp://example.com/", "file:///etc/passwd", "gopher://127.0.0.1:6379/_x", "dict://127.0.0.1:11211/", "ldap://x/",
    "javascript:alert(1)", "data:text/plain,x", "ws://example.com/", "wss://example.com/", "unix:///run/docker.sock",
    "http+unix://%2Frun%2Fdocker.sock/", "//example.com/", "/relative", "example.com/hook", "http:/example.com/",
    "http:example.com", "http://", "https://", "http:///path", "http://?x", "http://#x", "http://:80/", "", "tel:1",
    "jar:http://example.com!/", "view-source:http://x/", "htt\u2100p://x/", "http//example.com", "https:\\\\x.example",
]  # fmt: skip

PORTS = [
    "http://example.com:/", "http://example.com:0/", "http://example.com:65536/", "http://example.com:-1/",
    "http://example.com:80:80/", "http://example.com:http/", "http://example.com:0x50/", "http://example.com:99999999/",
    "http://example.com:\u0668\u0660/", "http://example.com:80x/",
]  # fmt: skip

ALWAYS = [*NUMBERS, *V6, *METADATA, *SPELLING, *SCHEMES, *PORTS]
"""Refused by every deployment."""

PRIVATE = [
    "http://127.0.0.1/", "http://127.0.0.1:8080/", "http://127.8.9.10/", "http://localhost/", "http://LOCALHOST/",
    "http://localhost./", "http://app.localhost/", "http://db/", "http://kafka:8080/", "http://printer.local/",
    "http://git.corp/", "http://x.internal/", "http://nas.lan/", "http://router.home/", "http://10.0.0.1/",
    "http://172.16.5.4/", "http://192.168.1.1/", "http://100.64.0.1/", "http://198.18.0.1/", "http://192.0.2.1/",
    "http://[::1]/", "http://[::1]:8080/", "http://[fc00::1]/", "http://[fd12::1]/", "http://[fec0::1]/",
    "http://[2001:db8::1]/", "http://1.0.0.127.in-addr.arpa/", "https://localhost.localdomain/",
]  # fmt: skip
"""Refused unless private addresses are allowed."""

ODD_PORTS = [
    f"http://receiver.example:{port}/" for port in (1, 22, 25, 111, 389, 2375, 5432, 6379, 9092, 9200, 11211, 27017)
]
"""Refused unless ports are named, or private addresses are allowed."""

FINE = [
    "http://example.com/", "https://example.com/hook?x=1&y=%20#part", "https://example.com:8443/hook",
    "http://8.8.8.8/", "http://[2606:4700:4700::1111]/", "https://xn--bcher-kva.example/", "https://a.b-c.d_e.example./",
    "HTTPS://EXAMPLE.COM/", "http://example.com:8080/a;b,c=(d)'~!*+$@:", "https://1password.com/", "http://0x.example/",
]  # fmt: skip
