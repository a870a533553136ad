"""The commands of `cbam`, one file each."""
