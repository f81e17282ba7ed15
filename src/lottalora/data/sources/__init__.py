"""Where the bytes of a data set come from: official files, hubs, archives, documents."""
