#!/usr/bin/env python3
"""Prints librdkafka.txt: keys, and the partitions that librdkafka's own partitioners pick. See README.md.

Calls the functions that librdkafka exports (rdkafka.h, "Partitioner"), as its producer does; no broker is needed.
"""
import ctypes
import random
import uuid

COUNTS = [1, 2, 3, 5, 7, 12, 13, 100, 1009]
PARTITIONERS = ["consistent", "consistent_random", "murmur2", "murmur2_random"]
TRIES = 200  # a partition that differs among so many calls is a random one

lib = ctypes.CDLL("librdkafka.so.1")
lib.rd_kafka_version_str.restype = ctypes.c_char_p
lib.rd_kafka_conf_new.restype = ctypes.c_void_p
lib.rd_kafka_new.restype = ctypes.c_void_p
lib.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
lib.rd_kafka_topic_new.restype = ctypes.c_void_p
lib.rd_kafka_topic_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
error = ctypes.create_string_buffer(512)
producer = lib.rd_kafka_new(0, lib.rd_kafka_conf_new(), error, len(error))
assert producer, error.value
# The random partitioners query available partitions. None is: they pick among all.
topic = lib.rd_kafka_topic_new(producer, b"vectors", None)
functions = {}
for name in PARTITIONERS:
    function = functions[name] = getattr(lib, f"rd_kafka_msg_partitioner_{name}")
    function.restype = ctypes.c_int32
    function.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p]


def pick(name, key, count):
    """The partition of a key (None is no key) among so many; `*` if it is a random one."""
    seen = {functions[name](topic, key, len(key or b""), count, None, None) for _ in range(TRIES)}
    assert all(0 <= partition < count for partition in seen)
    if len(seen) > 1:
        return "*"
    return "*" if count == 1 and pick(name, key, 100) == "*" else str(seen.pop())


random = random.Random(20240229)  # fixed: the file is the same each time
keys = []
for length in range(1, 41):  # all lengths of a word's tail; bytes from 0x80 on are negative where char is signed
    keys += [bytes(range(length)), bytes(0xFF - i for i in range(length)), bytes(length), random.randbytes(length)]
keys += [bytes([byte]) for byte in (0x7F, 0x80, 0xFE)] + [bytes([0x80, 0xFF]), bytes([0xC3, 0xA9, 0x80])]
keys += [f"order-{i}".encode() for i in range(100)]
keys += [str(uuid.UUID(bytes=random.randbytes(16), version=4)).encode() for _ in range(20)]
keys += [s.encode() for s in ("a", "user@example.com", "订单-1", "заказ", "注文", "café", "🐼", " ", "\n", '{"id":1}', "0", "-1")]
keys += [random.randbytes(length) for length in (64, 127, 128, 255, 256, 257, 1000, 1023)]

print(f"# Made by tests/vectors/librdkafka_vectors.py with librdkafka {lib.rd_kafka_version_str().decode()}:")
print("#   python3 tests/vectors/librdkafka_vectors.py > tests/vectors/librdkafka.txt")
print("# partitioner, key in hex (- is the empty key, null is none), then its partition (* is a random one) among", *COUNTS)
for name in PARTITIONERS:
    for text, key in (("null", None), ("-", b"")):
        print(name, text, *(pick(name, key, count) for count in COUNTS))
for key in dict.fromkeys(keys):
    for name in ("consistent_random", "murmur2_random"):
        print(name, key.hex(), *(pick(name, key, count) for count in COUNTS))
