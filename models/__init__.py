"""SkySense V2 in tensors: tokenizers, backbone, fusion, geo context, heads and losses. No files, no
processes."""
