import sys

from lottalora.cli.main import main

sys.exit(main())
