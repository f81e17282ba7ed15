"""What W_seed can be distributed as: the tables of quantiles, and a family for every distribution."""

from lottalora.scaffold.families import catalogue  # noqa: F401  # it registers its families
