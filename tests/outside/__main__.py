from sttd.cli.main import main
from sttd.protocols.registry import PROTOCOLS
from sttd.providers.registry import BATCH, ENGINES, STREAMING
from tests.outside.added import EveryMessage

PROTOCOLS.append(EveryMessage)
ENGINES["measure"] = ("tests.outside.added:Measure", BATCH)
ENGINES["count"] = ("tests.outside.added:Count", STREAMING)

main()
