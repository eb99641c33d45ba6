"""What is thrown at which decoder: apart from atheris, so that examples can be made without it."""

from deerfield.wire import codec, roster, signed
from deerfield.wire import federation_pb2 as pb

TARGETS = (
    (codec.decode_manifest, pb.Manifest),
    (codec.decode_wanted, pb.GetChunksRequest),
    (codec.decode_chunk, pb.Chunk),
    (codec.decode_key, pb.TaskKey),
    (codec.decode_offer, pb.NextTaskReply),
    (codec.decode_announcement, pb.BeginUploadRequest),
    (codec.decode_status, pb.UploadStatusReply),
    (codec.decode_event, pb.Event),
    (codec.decode_published, pb.GetRequest),
    (codec.decode_view, pb.Run),
    (lambda message: roster.decode_report(message.report), pb.HelloRequest),
    (roster.decode_site, pb.KnownSite),
    (signed.decode_attestation, pb.Attestation),
    (signed.decode_head, pb.CommitReply),
    (lambda message: codec.decode_spec(message.spec), pb.StartRequest),
    (lambda message: codec.decode_reason(message.reason), pb.DeclineRequest),
)
