"""What happens to pixels on the device."""
