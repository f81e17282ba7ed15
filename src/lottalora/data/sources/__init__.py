"""Sources of data sets: official files, hubs, archives, documents."""
