"""The web service on nodes: off until asked for, of an account that owns nothing, asked by the other nodes of the cluster."""

from __future__ import annotations

from tests.nodes import Lab
from tests.system.product import safekit

_SEEN_BY_ITS_ACCOUNT = """
ps -o user:20= -p $(systemctl show --property=MainPID --value safekit-web.service)
as() { setpriv --reuid=safekit-web --regid=safekit-web --clear-groups "$@"; }
as test -r /run/safekit/safekitd.sock && echo "the socket of root"
as test -r /var/safekit/cluster/cluster.key && echo "the key of the cluster"
as test -w /var/safekit/web/server.key && echo "its own files"
for path in node cluster/key; do
  as curl -s --unix-socket /run/safekit-web/safekitd.sock -H 'x-safekit-for: eve@192.0.2.1' http://n1/api/v1/$path
  echo
done
"""


def test_the_web_service_is_off_until_asked_for_and_owns_nothing(cluster: Lab) -> None:
    node = cluster["n1"]
    assert safekit(node, "webserver status").out == "web service: inactive\n"
    assert not node.succeeds("ss -Hltn sport = :9453 | grep -q .")
    safekit(node, "webserver start")
    try:
        asked = safekit(cluster["n2"], '-H "n3,n1" level', check=False)
        assert asked.code == 18
        assert f"https://{cluster['n3'].address}:9453: connection error: Connection refused" in asked.err
        assert "on host n1\n" in asked.out and "on host n3\n" not in asked.out
        account, own, key = node.out(_SEEN_BY_ITS_ACCOUNT).splitlines()
        assert account.strip() == "safekit-web"
        assert '"name":"n1"' in own and '"request.forbidden"' in key
    finally:
        safekit(node, "webserver stop")
