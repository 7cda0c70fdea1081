"""Prints what was timed through Java beside what was timed through C and its peers: table.py JAVA.json [C.json]."""

import json
import os
import sys

java = json.load(open(sys.argv[1]))
c = json.load(open(sys.argv[2])) if len(sys.argv) > 2 and os.path.exists(sys.argv[2]) else {"rows": []}
through_c = {row["work"]: row for row in c["rows"]}
print(f"{java['device']}: medians in microseconds; a peer's time over Java's in brackets")
for row in java["rows"]:
    other = through_c.get(row["work"], {})
    peers = "  ".join(f"{name} {us:.2f} ({us / row['us']:.2f} x)" for name, us in other.get("peers_us", {}).items())
    rate = f"{row['gbps']:6.0f} GB/s" if "gbps" in row else f"allocates {row['allocatedBytes']:.0f} bytes"
    from_c = other.get("us", row.get("cUs"))
    print(f"{row['work']:44s} {row['us']:9.2f}  {rate}  {f'from C {from_c:.2f}' if from_c else '':16s} {peers}")
