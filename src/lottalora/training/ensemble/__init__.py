"""Several runs of one architecture, trained at once with stacked parameters."""
