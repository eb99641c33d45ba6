"""Sizes and times that both sides of the wire must agree on."""

PROTOCOL = 2  # the version spoken here; 1 had no attestations, so none of its updates could be taken

MESSAGE_BYTES = 8 << 20
CHUNKS_PER_CALL = 4096  # of GetChunks; a longer list is asked for in parts
TENSORS = 20_000  # in one manifest
NAME_CHARS = 256
DIMENSIONS = 8
METRICS = 64  # in one update or evaluation
RELEASES = 16  # of one run beside its updates
NOISE = (0.01, 1e6)  # multipliers that an accountant can handle, in seconds; or 0, which costs infinity
LEDGER_ENTRIES = 2**53  # no sequence is above it: every JSON reader and database can hold it
DETAIL_CHARS = 2000  # of a reason that a person reads

POLL_S = 25.0  # longest wait of NextTask
UNARY_S = 30.0
HELLO_S = 10.0
IDLE_S = 120.0  # a transfer has no total deadline, but one since its last byte
KEEPALIVE_S = 30.0

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 10_000),  # Backoff waits longer than that; the channel must not add its own
)
SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", int(KEEPALIVE_S * 1000 * 0.8)),
    ("grpc.max_connection_age_ms", 3_600_000),  # so that certificates and load balancers rotate
    ("grpc.max_connection_age_grace_ms", 300_000),
    ("grpc.http2.bdp_probe", 0),  # probing lets a stream that nobody reads yet fill megabytes
    ("grpc.http2.lookahead_bytes", 512 << 10),  # of each stream on its way: 17 MB/s at 30 ms there and back
    ("grpc.so_reuseport", 0),  # a second aggregator on the port must fail, not share it
)
