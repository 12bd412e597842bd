"""The server of the run over MCP: a process of its own, whose input and output are the connection."""

from __future__ import annotations

import sys

from mcp.server.mcpserver import MCPServer
from runs import shop

from whyops_trace.integrations import mcp


def main(way: str) -> None:
    """Serve the tools until the client ends the connection."""
    server = MCPServer("shop", middleware=[mcp.Middleware()] if way == "attached" else [])
    for tool in (shop.find, shop.weigh, shop.refund):
        server.add_tool(tool)
    if way == "attached":
        server.run("stdio")
    else:
        with shop.by_wire():
            server.run("stdio")


if __name__ == "__main__":
    main(sys.argv[1])
