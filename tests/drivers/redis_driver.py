"""redis-py: everything a program does with it, in both protocols, said aloud.

Prints one line per observation. The tests run it against a server and against the proxy: the
lines must be the same. The server is the first argument, as a URL with user and password.
"""

import argparse
import os
import threading
import urllib.parse

import redis
from common import say

# One value: sixty-four megabytes.
BIG = 64 * 1024 * 1024


def connection(url, protocol, **options):
    """A client with one connection of its own."""
    authority = os.environ.get("DRIVER_CA")
    if authority:
        options.update(ssl_ca_certs=authority, ssl_check_hostname=False)
    return redis.Redis.from_url(
        url, protocol=protocol, single_connection_client=True, **options
    )


def failing(what, call, *arguments, **named):
    try:
        say(what, "no error", call(*arguments, **named))
    except redis.RedisError as error:
        say(what, type(error).__name__, str(error))


def logins(url, protocol):
    client = connection(url, protocol, client_name="me", lib_name="suite", lib_version="1")
    say("login", client.ping(), client.client_getname(), client.execute_command("ACL WHOAMI"))
    client.select(3)
    say("select", client.set("a", 3), client.get("a"))
    client.select(0)
    say("select", client.get("a"))
    failing("select", client.select, 99)
    failing("wrong password", client.execute_command, "AUTH", "app", "wrong")
    failing("no user", client.execute_command, "AUTH", "nobody", "wrong")
    say("still", client.execute_command("ACL WHOAMI"))
    parts = urllib.parse.urlsplit(url)
    bare = parts._replace(netloc=f"{parts.hostname}:{parts.port}").geturl()
    failing("no login", lambda: connection(bare, protocol).ping())
    wrong = parts._replace(netloc=f"app:wrong@{parts.hostname}:{parts.port}").geturl()
    failing("wrong login", lambda: connection(wrong, protocol).ping())
    alone = parts._replace(netloc=f":{parts.password}@{parts.hostname}:{parts.port}").geturl()
    say("password alone", connection(alone, protocol).execute_command("ACL WHOAMI"))
    again = connection(parts._replace(path="/5").geturl(), protocol)
    say("database in the URL", again.set("a", 5), again.client_info()["db"])


def values(client):
    say("text", client.set("text", "Grüße, 世界"), client.get("text"))
    say("bytes", client.set(b"\x00\xff", bytes(range(256))), client.get(b"\x00\xff"))
    say("options", client.set("o", 1, ex=1000, nx=True), client.set("o", 2, nx=True),
        client.set("o", 3, get=True), client.getex("o", persist=True), client.ttl("o"))
    say("numbers", client.incr("n", 5), client.incrbyfloat("f", 1.5), client.decr("n"))
    say("several", client.mset({"m1": 1, "m2": 2}), client.mget("m1", "none", "m2"))
    say("hash", client.hset("h", mapping={"a": 1, "b": "x"}), client.hgetall("h"),
        client.hmget("h", "a", "none"), client.hincrby("h", "a", 2), client.hexists("h", "b"))
    say("list", client.rpush("l", *range(10)), client.lrange("l", 2, 5), client.lpop("l", 2),
        client.lpos("l", 5), client.linsert("l", "before", 5, "x"), client.lmove("l", "l2"))
    say("set", client.sadd("s", "a"), client.smembers("s"), client.sismember("s", "a"),
        client.smismember("s", ["a", "b"]), client.srandmember("s"))
    say("sorted", client.zadd("z", {"a": 1, "b": 2.5, "c": float("inf")}),
        client.zrange("z", 0, -1, withscores=True), client.zscore("z", "b"),
        client.zrank("z", "c", withscore=False), client.zincrby("z", 0.1, "a"),
        client.zrangebyscore("z", 2, "+inf", withscores=True), client.zmpop(1, ["z"], min=True),
        client.zpopmax("z"))
    say("bits", client.setbit("bits", 7, 1), client.bitcount("bits"),
        client.bitfield("bits").get("u8", 0).execute())
    say("places", client.geoadd("g", (13.361389, 38.115556, "Palermo")),
        client.geopos("g", "Palermo", "none"), client.geohash("g", "Palermo"))
    say("counted", client.pfadd("p", *range(100)), client.pfcount("p"))
    say("sort", client.sort("l2"), client.sort("l", alpha=True, desc=True))
    say("keys", client.type("z"), client.object("encoding", "n"), client.exists("l", "none"),
        client.rename("m1", "m3"), client.copy("m3", "m4"), client.unlink("m3", "none"))
    say("dump", client.restore("copy", 0, client.dump("h")), client.hgetall("copy"))
    say("time", len(client.time()), client.echo("x"), client.lolwut()[:5])


def errors(client):
    client.set("text", "x")
    failing("wrong type", client.lpush, "text", 1)
    failing("no number", client.incr, "text")
    failing("no command", client.execute_command, "NOSUCH", "a")
    failing("arity", client.execute_command, "GET")
    failing("no key", client.rename, "none", "a")
    failing("no script", client.evalsha, "0" * 40, 0)
    failing("syntax", client.execute_command, "SET", "a", "b", "NOSUCH")
    failing("no group", client.xreadgroup, "g", "c", {"none": ">"})


def pipelines(client):
    pipe = client.pipeline(transaction=False)
    for n in range(10_000):
        pipe.set(f"p{n % 100}", n).get(f"p{n % 100}") if n % 2 else pipe.incr("counter")
    answers = pipe.execute()
    say("pipeline", len(answers), sum(int(answer) for answer in answers if answer is not True))
    pipe = client.pipeline(transaction=False)
    pipe.set("a", "x").incr("a").get("a")
    answers = pipe.execute(raise_on_error=False)
    say("pipeline with an error", [repr(answer) for answer in answers])


def transactions(client, other):
    with client.pipeline() as pipe:
        say("transaction", pipe.set("t", 1).incr("t").hset("th", "f", "v").hgetall("th").execute())
    with client.pipeline() as pipe:
        pipe.watch("t")
        other.set("t", 100)
        pipe.multi()
        pipe.get("t")
        failing("watched", pipe.execute)
    with client.pipeline() as pipe:
        pipe.watch("t")
        pipe.multi()
        say("unchanged", pipe.get("t").execute())
    with client.pipeline() as pipe:
        pipe.set("t", "x").incr("t").get("t")
        failing("error inside", pipe.execute)
    with client.pipeline() as pipe:
        pipe.set("t", "y").execute_command("NOSUCH")
        failing("aborted", pipe.execute)
    say("after", client.get("t"))


def message(pubsub):
    """The next message, however long it takes."""
    while True:
        heard = pubsub.get_message(timeout=20)
        if heard:
            return heard["type"], heard["pattern"], heard["channel"], heard["data"]


def subscriptions(client, other):
    pubsub = other.pubsub()
    pubsub.subscribe("c", "d")
    say("subscribed", message(pubsub), message(pubsub))
    pubsub.psubscribe("c*")
    say("subscribed", message(pubsub))
    say("published", client.publish("c", "hello"), client.publish("nobody", "x"))
    say("heard", message(pubsub), message(pubsub))
    pubsub.ping("are you there")
    say("heard", message(pubsub))
    pubsub.unsubscribe("c")
    pubsub.punsubscribe("c*")
    say("heard", message(pubsub), message(pubsub))
    pubsub.ssubscribe("shard")
    say("sharded", message(pubsub))
    say("published", client.spublish("shard", "x" * 100_000))
    kind, _, channel, data = message(pubsub)
    say("heard", kind, channel, len(data))
    say("channels", client.pubsub_channels(), client.pubsub_numsub("d"),
        client.pubsub_numpat())
    for n in range(1000):
        client.publish("d", n)
    say("many", sum(int(message(pubsub)[3]) for _ in range(1000)))
    pubsub.close()


def blocking(client, other):
    def push():
        # Not before somebody waits for it.
        while b"blocked_clients:0" in other.execute_command("INFO", "clients", NEVER_DECODE=True):
            pass
        other.rpush("queue", "a", "b", "c")

    thread = threading.Thread(target=push)
    thread.start()
    say("blocked", client.blpop(["none", "queue"], timeout=20))
    thread.join()
    say("moved", client.blmove("queue", "queue2", 20), client.brpop("queue", 20))
    say("in vain", client.blpop("none", timeout=0.05), client.bzpopmin("none", timeout=0.05),
        client.blmpop(0.05, 1, "none", direction="LEFT"))
    client.zadd("bz", {"a": 1})
    say("sorted", client.bzpopmax("bz", 20))


def streams(client):
    for n in range(10):
        client.xadd("st", {"n": n, "v": f"value {n}"}, id=f"{n + 1}-1")
    say("stream", client.xlen("st"), client.xrange("st", "3", "4"), client.xrevrange("st", count=1))
    say("read", client.xread({"st": "8"}), client.xread({"st": "$"}, block=20))
    say("group", client.xgroup_create("st", "g", "0"),
        client.xreadgroup("g", "one", {"st": ">"}, count=3),
        client.xreadgroup("g", "two", {"st": ">"}, count=2, block=1000))
    say("pending", client.xpending("st", "g"), client.xack("st", "g", "1-1"),
        [entry["message_id"] for entry in client.xpending_range("st", "g", "-", "+", 10)])
    say("claimed", client.xclaim("st", "g", "two", 0, ["2-1"]),
        client.xautoclaim("st", "g", "one", 0, count=2))
    say("info", client.xinfo_stream("st")["length"], client.xinfo_groups("st")[0]["pending"],
        client.xtrim("st", maxlen=5), client.xdel("st", "10-1"))
    failing("group again", client.xgroup_create, "st", "g", "0")


def scripts(client):
    script = client.register_script("return {KEYS[1], ARGV[1], 7, {'nested', {1}}}")
    say("script", script(keys=["k"], args=["v"]), client.script_exists(script.sha))
    say("eval", client.eval("return redis.call('INCR', KEYS[1])", 1, "evals"))
    failing("script error", client.eval, "return redis.error_reply('MINE went wrong')", 0)
    failing("script error", client.eval, "return redis.call('LPUSH', KEYS[1], 1)", 1, "evals")


def loops(client):
    client.mset({f"scanned:{n}": n for n in range(1000)})
    say("scan", len(set(client.scan_iter(match="scanned:*", count=17))))
    client.hset("big", mapping={f"f{n}": n for n in range(1000)})
    client.sadd("bigset", *range(1000))
    client.zadd("bigz", {str(n): n for n in range(1000)})
    say("loops", len(dict(client.hscan_iter("big", count=50))),
        len(set(client.sscan_iter("bigset", match="1*"))), len(dict(client.zscan_iter("bigz"))))
    say("keys", len(client.keys("scanned:9*")), client.delete(*client.keys("scanned:*")))


def tracking(client, other, protocol):
    if protocol == 2:
        failing("tracking", client.execute_command, "CLIENT", "CACHING", "YES")
        return
    pushed = []
    client.connection._parser.set_invalidation_push_handler(pushed.append)
    say("tracking", client.execute_command("CLIENT", "TRACKING", "ON"))
    client.set("tracked", 1)
    say("value", client.get("tracked"))
    other.set("tracked", 2)
    while not pushed:
        client.ping()
    say("invalidated", pushed, client.get("tracked"))
    say("tracking", client.execute_command("CLIENT", "TRACKING", "OFF"))


def silence(client):
    connection = client.connection
    sent = [("CLIENT", "REPLY", "OFF"), ("SET", "quiet", "1"), ("NOSUCH",),
            ("CLIENT", "REPLY", "ON"), ("CLIENT", "REPLY", "SKIP"), ("INCR", "quiet"),
            ("GET", "quiet")]
    for command in sent:
        connection.send_command(*command)
    say("silence", connection.read_response(), connection.read_response())


def types(client, protocol):
    client.hset("h3", "f", "v")
    client.sadd("s3", "m")
    client.zadd("z3", {"m": 1.5})
    for command in ["HGETALL h3", "SMEMBERS s3", "ZRANGE z3 0 -1 WITHSCORES", "ZSCORE z3 m",
                    "GET none", "EXISTS none", "HRANDFIELD h3 1 WITHVALUES", "LPOP none 2",
                    "CONFIG GET maxclients", "ACL CAT"]:
        connection = client.connection
        connection.send_command(*command.split())
        answer = connection.read_response()
        say("raw", protocol, command, len(answer) if command == "ACL CAT" else answer)


def big(client):
    value = bytes(range(256)) * (BIG // 256)
    say("big", client.set("big", value), client.strlen("big"), client.get("big") == value)
    say("big", client.append("big", "x"), client.getrange("big", BIG - 2, -1))
    with client.pipeline() as pipe:
        answers = pipe.get("big").hset("bigh", "f", value).hgetall("bigh").execute()
    say("big", len(answers[0]), len(answers[2][b"f"]), client.delete("big", "bigh"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    url = parser.parse_args().url
    for protocol in (2, 3):
        client, other = connection(url, protocol), connection(url, protocol)
        say("protocol", protocol, client.flushall())
        logins(url, protocol)
        for check in (values, errors, pipelines, streams, scripts, loops, silence, big):
            check(client)
        for check in (transactions, subscriptions, blocking):
            check(client, connection(url, protocol))
        tracking(client, other, protocol)
        types(client, protocol)
        client.reset()
        client.close()
    say("end")


if __name__ == "__main__":
    main()
