"""The web service of a node (spec §9, §10): a console for people, and the door for the commands of other nodes.

A process of its own with an account of its own, `safekit-web.service`. It decides nothing and owns nothing: it asks `safekitd` on
the socket `Paths.web_socket`, which answers what may be asked from afar (`safekit.afar`) and nothing else. When it is stopped,
consoles and `safekit -H` of other nodes meet a closed port, and nothing else changes.

HTTPS only, TLS 1.3. People have a password (`accounts.py`, `passwords.py`), sessions and limits of attempts (`sessions.py`);
nodes of one cluster vouch for each other with a key that comes from the cluster's (`proof.py`). Nothing is shown or done for
anybody else.
"""
