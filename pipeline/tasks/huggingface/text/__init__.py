"""Tasks on texts: classification, similarity, translation; what they are tokenized by."""
