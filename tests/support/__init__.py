"""What tests share: a fake engine, bundles made in a moment, a network that is no Transformer."""
