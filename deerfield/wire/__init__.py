"""Everything that knows protobuf: generated messages, codec, client."""
