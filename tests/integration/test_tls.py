"""The whole cluster over tls+tcp:// with certificates on both sides; who has none, or one of
another authority, gets in nowhere."""

import os
import subprocess

from cluster import Cluster, check, check_equal


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def authority(folder, name):
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=" + name,
            "-keyout", "%s/%s.key" % (folder, name), "-out", "%s/%s.pem" % (folder, name))


def certificate(folder, name, ca):
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1",
            "-keyout", "%s/%s.key" % (folder, name), "-out", "%s/%s.csr" % (folder, name))
    openssl("x509", "-req", "-days", "2", "-in", "%s/%s.csr" % (folder, name),
            "-CA", "%s/%s.pem" % (folder, ca), "-CAkey", "%s/%s.key" % (folder, ca),
            "-CAcreateserial", "-out", "%s/%s.pem" % (folder, name))


def tls_group(folder, ca, name):
    return ('tls = { ca_file = "%s/%s.pem"; cert_file = "%s/%s.pem"; key_file = "%s/%s.key"; };\n'
            % (folder, ca, folder, name, folder, name))


with Cluster() as c:
    c.url = "tls+" + c.url
    c.env["CLOISTER_URL"] = c.url
    authority(c.dir, "ca")
    authority(c.dir, "stranger-ca")
    for name in ("coordinator", "worker", "client"):
        certificate(c.dir, name, "ca")
    certificate(c.dir, "stranger", "stranger-ca")
    with open(c.config, "a") as f:
        f.write(tls_group(c.dir, "ca", "coordinator"))
    worker_config = os.path.join(c.dir, "worker.cfg")
    with open(worker_config, "w") as f:
        f.write('coordinator = "%s";\n%s' % (c.url, tls_group(c.dir, "ca", "worker")))
    client = os.path.join(c.dir, "client.cfg")
    with open(client, "w") as f:
        f.write(tls_group(c.dir, "ca", "client"))
    stranger = os.path.join(c.dir, "stranger.cfg")
    with open(stranger, "w") as f:
        f.write(tls_group(c.dir, "ca", "stranger"))

    c.coordinator()
    c.worker("one", "--config", worker_config)
    c.wait("the worker", lambda: b"alive" in c.run("workers", "--config", client).stdout)
    got = c.json("submit", "--config", client, "-m", "m", "-n", "8", "Hello.")
    check("an answer", len(got["ids"]) > 0)
    done = c.run("status", "--config", stranger, "--wait", "2s")
    check_equal("a certificate of another authority", done.returncode, 5)
    plain = c.run("status", "--url", c.url.replace("tls+", ""), "--wait", "2s")
    check_equal("no TLS at all", plain.returncode, 5)
print("ok")
