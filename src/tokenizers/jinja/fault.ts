/** What a template does that Jinja would refuse; becomes a TokenizerError where templates are rendered. */
export class TemplateFault extends Error {
  override name = 'TemplateFault';
}
