"""Networks: plain modules that know nothing of scaffolds or of data-set names."""
