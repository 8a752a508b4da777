"""Every query and document: a bundle, its rules, text → token ids → token vectors. No torch here."""
