"""One JSON file to typed, checked settings: DeepSpeed's keys and the skysense object."""
