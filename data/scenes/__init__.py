"""Which tiles a large scene gives, and which of them are for validation."""
