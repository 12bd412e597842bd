"""A framework that emits spans of OpenTelemetry is recorded with one line, beside functions of one's own."""

from opentelemetry import trace as opentelemetry

from whyops_trace import flush_sync, otel, trace, traced_tool

otel.attach()


@traced_tool
def look_up(parcel: int) -> str:
    return f"Parcel {parcel} is in Bonn."


def framework(question: str) -> str:
    """Run an agent as frameworks do, with a span for it, for the model and for the tool."""
    tracer = opentelemetry.get_tracer("framework")
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "clerk"}
    chat = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "track"}
    with tracer.start_as_current_span("invoke_agent clerk", attributes=agent):
        with tracer.start_as_current_span("chat gpt-4o", attributes=chat) as span:
            span.set_attribute("gen_ai.response.finish_reasons", ["tool_calls"])
            span.set_attribute("gen_ai.usage.input_tokens", 12)
            span.set_attribute("gen_ai.usage.output_tokens", 5)
        arguments = {"gen_ai.tool.call.arguments": '{"parcel": 7}'}
        with tracer.start_as_current_span("execute_tool track", attributes={**tool, **arguments}) as span:
            answer = look_up(7)
            span.set_attribute("gen_ai.tool.call.result", answer)
        return answer


with trace("parcel-7"):
    print(framework("Where is parcel 7?"))
flush_sync()
print("Look at it with: whyops-trace show parcel-7")
