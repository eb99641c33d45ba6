"""Sizes and times that both sides of the wire must agree on."""

PROTOCOL = 4  # the version spoken here; 1 had no attestations, 2 no turn of an upload, 3 no commitment to the data

MESSAGE_BYTES = 8 << 20
METADATA_BYTES = 16 << 10  # of one call, keys and values
CHUNKS_PER_CALL = 4096  # of GetChunks; a longer list is asked for in parts
TENSORS = 20_000  # in one manifest or adapter
CHUNKS = 32_768  # in one manifest
TENSOR_BYTES = 256 << 20  # of one tensor: what an aggregation holds in memory of each site
MANIFEST_BYTES = 4 << 30  # of all tensors of a manifest or adapter
SPEC_BYTES = 2 << 20  # of a run as JSON: it travels with each task, beside a manifest
NAME_CHARS = 256
DIMENSIONS = 8
METRICS = 64  # in one update or evaluation
RELEASES = 16  # of one run beside its updates
NOISE = (0.01, 1e6)  # multipliers that an accountant can handle, in seconds; or 0, which costs infinity
LEDGER_ENTRIES = 2**53  # no sequence is above it: every JSON reader and database can hold it
VERDICT_BYTES = 1 << 20  # of a gate's verdict as JSON
RULES = 64  # in a verdict
ATTACHMENT_BYTES = 4 << 20  # of a file about a run
ATTACHMENTS = 64  # of one run, by name
PROMOTIONS = 1000  # of one model in an answer: the newest ones
POPULATIONS = 64  # in what one site says of itself
LIST_BYTES = 4 << 20  # of the runs in one answer of List, or one run; the rest is asked for after the last one
RUNS_PER_CALL = 64  # of List; each is several looks at the database
SITES_PER_CALL = 64  # of Sites, whatever each of them says; the rest is asked for after the last one
DETAIL_CHARS = 2000  # of a reason that a person reads

UNREAD_BYTES = 512 << 10  # of a stream that the server does not read yet, HTTP/2's window: 17 MB/s at 30 ms and back

POLL_S = 25.0  # longest wait of NextTask
UNARY_S = 30.0
HELLO_S = 10.0
IDLE_S = 120.0  # a transfer has no total deadline, but one since its last byte
KEEPALIVE_S = 30.0

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", METADATA_BYTES // 2),  # above it a call may be refused, above the next it is
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
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
    ("grpc.max_metadata_size", METADATA_BYTES // 2),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", int(KEEPALIVE_S * 1000 * 0.8)),
    ("grpc.max_connection_age_ms", 3_600_000),  # so that certificates and load balancers rotate
    ("grpc.max_connection_age_grace_ms", 300_000),
    ("grpc.http2.bdp_probe", 0),  # probing lets a stream that nobody reads yet fill megabytes
    ("grpc.http2.lookahead_bytes", UNREAD_BYTES),
    ("grpc.so_reuseport", 0),  # a second aggregator on the port must fail, not share it
)
