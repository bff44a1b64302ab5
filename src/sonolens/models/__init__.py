"""One architecture per file; one nn.ReLU module per activation, so that hooks see every one."""
