"""Compiled models: recorded as they were written, at once, and compiled as before afterwards."""

from __future__ import annotations

import threading

import pytest
import torch
from decoders import assert_same_weights, eager, ids_of

import softmap
from softmap.models.compiling import uncompiled

IDS = ids_of(9)


class Backend:
    """A backend that counts what it is asked to compile, and runs it as it is."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def backend():
    torch._dynamo.reset()
    yield Backend()
    torch._dynamo.reset()


def whole(model, **options):
    return torch.compile(model, **options)


def in_place(model, **options):
    model.compile(**options)
    return model


def forward(model, **options):
    model.forward = torch.compile(model.forward, **options)
    return model


def layer_by_layer(model, **options):
    for layer in model.model.layers:
        layer.compile(**options)
    return model


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("compile_it", [whole, in_place, forward, layer_by_layer])
def test_a_compiled_model_is_recorded_without_compiling_anything(make_decoder, backend, compile_it, fullgraph):
    model = make_decoder()
    expected = eager(model, input_ids=IDS).attentions
    compiled = compile_it(model, backend=backend, fullgraph=fullgraph)
    with softmap.recording(model) as rec:
        compiled(input_ids=IDS)
    assert backend.graphs == 0
    assert_same_weights(rec.recording, expected)


@pytest.mark.slow
def test_a_model_is_compiled_after_a_recording_as_before(make_decoder, backend):
    model = make_decoder()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with torch.no_grad():
        before = compiled(input_ids=IDS, use_cache=False).logits
        count = backend.graphs
        softmap.record(IDS, model)
        assert torch.equal(compiled(input_ids=IDS, use_cache=False).logits, before)
    assert count == backend.graphs > 0


def test_what_is_compiled_in_the_block_is_recorded(make_decoder, backend):
    model = make_decoder()
    with softmap.recording(model) as rec:
        torch.compile(model, backend=backend, fullgraph=True)(input_ids=IDS)
    assert backend.graphs == 0
    assert_same_weights(rec.recording, eager(model, input_ids=IDS).attentions)


def stance():
    return torch._dynamo.eval_frame._stance.stance


def test_the_compilers_stance_is_put_back_whichever_of_several_blocks_ends_last():
    first, second = uncompiled(), uncompiled()
    with torch.compiler.set_stance("eager_on_recompile"):
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert stance() == "force_eager"
        second.__exit__(None, None, None)
        assert stance() == "eager_on_recompile"
    assert stance() == "default"


def test_the_compilers_stance_is_put_back_after_an_exception(make_decoder):
    with pytest.raises(ZeroDivisionError), softmap.recording(make_decoder()):
        _ = 1 / 0
    assert stance() == "default"


def test_recordings_in_threads_leave_the_compilers_stance_as_it_was(make_decoder):
    def record():
        for _ in range(5):
            softmap.record(IDS, model)

    model = make_decoder(num_hidden_layers=1)
    models = [make_decoder(num_hidden_layers=1) for _ in range(3)]
    threads = [threading.Thread(target=lambda m=m: [softmap.record(IDS, m) for _ in range(5)]) for m in models]
    for thread in threads:
        thread.start()
    record()
    for thread in threads:
        thread.join()
    assert stance() == "default"


@pytest.mark.slow
def test_a_compiled_model_that_is_set_to_softmap_does_not_trace_it(make_decoder, backend):
    model = make_decoder(num_hidden_layers=1)
    with torch.no_grad():
        expected = model(input_ids=IDS).logits
        model.set_attn_implementation("softmap")
        traced = []

        def look(graph, inputs):
            traced.append(graph.print_readable(print_output=False))
            return graph.forward

        found = torch.compile(model, backend=look)(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert traced
    assert not any("scaled_dot_product" in code for code in traced)
