"""What an audit found, as records: counted, summarised, answered as questions."""
