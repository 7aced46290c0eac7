drop function rent.explain(text, text);
